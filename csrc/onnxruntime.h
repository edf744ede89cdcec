// What is called of onnxruntime. Its packages carry no headers, and its C interface only ever grows: declared here are
// places in its table of functions, and the description of an operator as of version 1.16.
#pragma once
#include <cstddef>
#include <cstdint>

namespace skimba {

struct OrtApi {
  void* functions[275];  // 102 of version 1, and what later versions added behind them
};
struct OrtApiBase {
  const OrtApi* (*get_api)(uint32_t version);
  const char* (*version)();
};
using Status = void*;  // null: it went well
constexpr uint32_t ORT_VERSION = 16, ORT_VERSION_OF_THREADS = 17;

enum Place {
  CREATE_STATUS = 0,
  CREATE_DOMAIN = 26,
  ADD_OPERATOR = 27,
  ADD_DOMAIN = 28,
  TENSOR_DATA = 51,
  AXES_COUNT = 61,
  AXES = 62,
  TENSOR_SHAPE = 65,
  FLOAT_ATTRIBUTE = 85,
  INPUT = 90,
  OUTPUT = 91,
  RELEASE_SHAPE = 99,
  PARALLEL_FOR = 274,  // of version 17, the others of version 1
};

template <class... Arguments> Status call(const OrtApi* api, Place place, Arguments... arguments) {
  return reinterpret_cast<Status (*)(Arguments...)>(api->functions[place])(arguments...);
}

enum ElementType : int { FLOAT32 = 1, INT32 = 6 };

// What onnxruntime calls OrtCustomOp. Members that may be null are.
struct Description {
  uint32_t version = ORT_VERSION;
  void* (*create)(const Description*, const OrtApi*, const void*) = nullptr;
  const char* (*name)(const Description*);
  const char* (*provider)(const Description*);
  ElementType (*input_type)(const Description*, size_t);
  size_t (*input_count)(const Description*);
  ElementType (*output_type)(const Description*, size_t);
  size_t (*output_count)(const Description*);
  void (*compute)(void*, void*) = nullptr;
  void (*destroy)(void*);
  int (*input_kind)(const Description*, size_t);
  int (*output_kind)(const Description*, size_t);
  int (*input_memory)(const Description*, size_t);
  int (*variadic[4])(const Description*);
  Status (*create_with_status)(const Description*, const OrtApi*, const void*, void**);
  Status (*compute_with_status)(void*, void*);
};

}  // namespace skimba
