// Reads the operator's inputs as tensors with shapes; its errors name the input.
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <atomic>

#include "onnxruntime.h"

namespace pdeinfer {

#define RETURN_IF_ERROR(expression) \
  if (OrtStatus* error = (expression)) return error

// The coefficients are inputs 1, 3, 5 and 7, the source is input 12. Each is followed by its bias, present if it is a
// convolution.
enum Input { kH, kCourantX, kDiffusionX = 5, kScale = 9, kShift, kStart, kSource, kInputs = 14 };
const char* const kInputNames[kInputs] = {"h",
                                          "courant_x",
                                          "courant_x_bias",
                                          "courant_y",
                                          "courant_y_bias",
                                          "diffusion_x",
                                          "diffusion_x_bias",
                                          "diffusion_y",
                                          "diffusion_y_bias",
                                          "scale",
                                          "shift",
                                          "start",
                                          "source",
                                          "source_bias"};

// ONNX Runtime's functions. Atomic because every new session stores the pointer (always the same one) while kernels of
// other sessions may read it.
struct Api {
  std::atomic<const OrtApi*> pointer;
  const OrtApi* operator->() const { return pointer.load(std::memory_order_relaxed); }
};
inline Api api;

inline OrtStatus* out_of_memory() { return api->CreateStatus(ORT_FAIL, "pdeinfer.GlobalLayer: out of memory"); }

inline OrtStatus* make_error(OrtErrorCode code, const char* format, va_list arguments) {
  char message[512] = "pdeinfer.GlobalLayer: ";
  const size_t length = strlen(message);
  vsnprintf(message + length, sizeof message - length, format, arguments);
  return api->CreateStatus(code, message);
}

__attribute__((format(printf, 1, 2))) inline OrtStatus* invalid(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  OrtStatus* const error = make_error(ORT_INVALID_ARGUMENT, format, arguments);
  va_end(arguments);
  return error;
}

// An error of the GPU or its software.
__attribute__((format(printf, 1, 2))) inline OrtStatus* device_error(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  OrtStatus* const error = make_error(ORT_EP_FAIL, format, arguments);
  va_end(arguments);
  return error;
}

struct Shape {
  size_t rank;
  int64_t sides[4];

  bool operator==(const Shape& other) const {
    return rank == other.rank && !memcmp(sides, other.sides, rank * sizeof *sides);
  }
};

struct Text {
  char characters[128];
};

inline Text to_text(const Shape& shape) {
  Text text{"("};
  size_t length = 1;
  for (size_t i = 0; i < shape.rank; ++i) {
    length += snprintf(text.characters + length, sizeof text - length, i ? ", %lld" : "%lld",
                       static_cast<long long>(shape.sides[i]));
  }
  snprintf(text.characters + length, sizeof text - length, ")");
  return text;
}

struct Tensor {
  const float* values;  // null if the input is absent
  Shape shape;

  OrtStatus* read(const OrtValue* value, int input) {
    OrtTensorTypeAndShapeInfo* info;
    RETURN_IF_ERROR(api->GetTensorTypeAndShape(value, &info));
    OrtStatus* error = api->GetDimensionsCount(info, &shape.rank);
    if (!error && shape.rank > 4) error = invalid("%s must be of rank 4 at most", kInputNames[input]);
    if (!error) error = api->GetDimensions(info, shape.sides, shape.rank);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (error) return error;
    return api->GetTensorMutableData(const_cast<OrtValue*>(value),
                                     reinterpret_cast<void**>(const_cast<float**>(&values)));
  }
};

inline OrtStatus* expect(const Tensor* inputs, int input, const Shape& expected) {
  const Tensor& tensor = inputs[input];
  if (tensor.values && tensor.shape == expected) return nullptr;
  return invalid("%s must be %s, not %s", kInputNames[input], to_text(expected).characters,
                 tensor.values ? to_text(tensor.shape).characters : "absent");
}

}  // namespace pdeinfer
