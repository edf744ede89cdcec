#!/bin/sh
# Random operator calls on kernels built with AddressSanitizer and UndefinedBehaviorSanitizer. From the repository's root:
#   tests/hostile/sanitize.sh --calls 100000 --compare 10
# Needs g++, cmake, nanobind and whatever the package needs; builds into build/sanitized, and touches nothing else.
set -e
PYTHON=${PYTHON:-python3}
BUILD=build/sanitized
FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
cmake -S . -B $BUILD -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS="$FLAGS" -DCMAKE_MODULE_LINKER_FLAGS="-fsanitize=address,undefined" \
  -DPython_EXECUTABLE="$(command -v $PYTHON)" -Dnanobind_DIR="$($PYTHON -m nanobind --cmake_dir)" >/dev/null
cmake --build $BUILD -j2 >/dev/null
rm -rf $BUILD/src
cp -r src $BUILD/src
rm -f $BUILD/src/skimba/ops/_native*.so
cp $BUILD/_native*.so $BUILD/src/skimba/ops/
# The interpreter itself leaks by design, and is not built with the sanitizers: their runtime has to come first.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH="$BUILD/src:$PWD"
exec "$PYTHON" -m tests.hostile.operator_calls "$@"
