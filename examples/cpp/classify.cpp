// Classifies a picture with a package of skimba.export(model, "model.pt2"): torch alone, no Python, no skimba.
//   classify model.pt2 picture.pgm     (binary PGM or PPM, of the model's size)
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <fstream>
#include <iostream>
#include <sstream>

// The numbers of a list in the package's JSON: enough for what skimba writes there.
std::vector<double> numbers(const std::string& json, const std::string& key) {
  size_t start = json.find("\"" + key + "\": [");
  if (start == std::string::npos) throw std::runtime_error("the package says nothing of " + key);
  std::stringstream list(json.substr(json.find('[', start) + 1));
  std::vector<double> found;
  for (double number; list >> number; list.ignore(1)) found.push_back(number);
  return found;
}

// (1 c height width), on 0 ... 255
at::Tensor read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t width, height, most;
  if (!(file >> kind >> width >> height >> most) || (kind != "P5" && kind != "P6") || most != 255)
    throw std::runtime_error(path + " is not a binary PGM or PPM of 8 bits");
  file.ignore(1);
  at::Tensor pixels = at::empty({height, width, kind == "P5" ? 1 : 3}, at::kByte);
  if (!file.read(static_cast<char*>(pixels.data_ptr()), pixels.numel())) throw std::runtime_error(path + " is cut off");
  return pixels.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat);
}

int main(int count, char** arguments) try {
  if (count != 3) throw std::runtime_error("usage: classify model.pt2 picture.pgm");
  torch::inductor::AOTIModelPackageLoader model(arguments[1]);
  std::string about = model.get_metadata().at("skimba");
  std::vector<double> shape = numbers(about, "shape"), mean = numbers(about, "mean"), std = numbers(about, "std");
  at::Tensor picture = read_picture(arguments[2]);
  for (int axis = 0; axis < 3; ++axis)
    if (picture.size(axis + 1) != shape[axis]) throw std::runtime_error("the picture is not of the model's size");
  auto by_channel = [](std::vector<double>& values) { return at::tensor(values, at::kFloat).view({1, -1, 1, 1}); };
  picture = ((picture / 255 - by_channel(mean)) / by_channel(std)).contiguous();
  at::Tensor logits = model.run({picture})[0];
  std::cout << "class " << logits.argmax(1).item<int64_t>() << "\n" << logits << "\n";
} catch (const std::exception& error) {
  std::cerr << "classify: " << error.what() << "\n";
  return 1;
}
