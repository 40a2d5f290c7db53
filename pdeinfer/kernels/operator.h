// What the operators for CPUs and for CUDA share: they read the inputs of a node, and describe pdeinfer.GlobalLayer to
// ONNX Runtime.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include <atomic>
#include <new>
#include <type_traits>

#include "inputs.h"
#include "onnxruntime.h"

namespace pdeinfer {

constexpr uint32_t kApiVersion = 18;       // the first with KernelContext_GetScratchBuffer
constexpr uint32_t kOrtCustomOpVersion = 17;  // the first with shape inference

constexpr int kVersion = 2;  // of the operator; the output of version 1 was (N, H, W, C)

inline thread_local int64_t kernels_created;

// Keeps the runtime's functions. Returns whether it has them all, or is too old.
inline bool use_api(const OrtApiBase* base) {
  api.pointer = base->GetApi(kApiVersion);
  return api.pointer.load();
}

struct Attributes {
  int64_t num_steps;
  float source_factor;
  int64_t signed_velocity;  // 0 if the attribute is absent

  OrtStatus* read(const OrtKernelInfo* info) {
    constexpr int64_t kMostSteps = 1000;  // because a running node cannot be interrupted
    RETURN_IF_ERROR(api->KernelInfoGetAttribute_int64(info, "num_steps", &num_steps));
    RETURN_IF_ERROR(api->KernelInfoGetAttribute_float(info, "source", &source_factor));
    if (OrtStatus* absent = api->KernelInfoGetAttribute_int64(info, "signed_velocity", &signed_velocity)) {
      api->ReleaseStatus(absent);
      signed_velocity = 0;
    }
    if (num_steps >= 1 && num_steps <= kMostSteps) return nullptr;
    return invalid("num_steps must be 1 to %lld, not %lld", static_cast<long long>(kMostSteps),
                   static_cast<long long>(num_steps));
  }
};

// Checks that the weights have the shapes that a number of channels demands.
inline OrtStatus* check_weights(const Tensor* inputs, int64_t channels) {
  RETURN_IF_ERROR(expect(inputs, kScale, {1, {channels}}));
  RETURN_IF_ERROR(expect(inputs, kShift, {1, {channels}}));
  for (int input = kCourantX; input < kInputs; input += 2) {
    if (input == kScale) input = kSource;
    if (!inputs[input + 1].values) continue;
    RETURN_IF_ERROR(expect(inputs, input, {4, {channels, 1, 3, 3}}));
    RETURN_IF_ERROR(expect(inputs, input + 1, {1, {channels}}));
  }
  return nullptr;
}

// Fills in what kind of value an input has, and checks its shape unless it is a weight.
template <typename Coefficient>
OrtStatus* read_kind(const Tensor* inputs, int input, Coefficient* coefficient) {
  const Tensor& tensor = inputs[input];
  if (inputs[input + 1].values) {
    coefficient->kind = Coefficient::kConvolution;
  } else if (tensor.values && tensor.shape == Shape{4, {1, 1, 1, 1}}) {
    coefficient->kind = Coefficient::kConstant;
  } else if (tensor.values) {
    RETURN_IF_ERROR(expect(inputs, input, inputs[kH].shape));
    coefficient->kind = Coefficient::kMap;
  }
  return nullptr;
}

// Fills in the layer's attributes, sides, tensors and kinds of coefficients, whose values it leaves to the caller. It
// checks the shapes of all but the weights.
template <typename Layer>
OrtStatus* read_layer(OrtKernelContext* context, const Attributes& attributes, const Tensor* inputs, Layer* layer) {
  layer->num_steps = attributes.num_steps;
  layer->source_factor = attributes.source_factor;
  const Shape& shape = inputs[kH].shape;
  if (shape.rank != 4) return invalid("h must be of rank 4, (N, H, W, C), not %zu", shape.rank);
  layer->images = shape.sides[0];
  layer->height = shape.sides[1];
  layer->width = shape.sides[2];
  layer->channels = shape.sides[3];
  layer->input = inputs[kH].values;
  layer->start = inputs[kStart].values;
  if (layer->start) RETURN_IF_ERROR(expect(inputs, kStart, shape));
  int input = kCourantX;
  for (auto& coefficient : layer->coefficients) {
    using Coefficient = std::remove_reference_t<decltype(coefficient)>;
    const bool is_y = input == kCourantX + 2 || input == kDiffusionX + 2;
    if (is_y && inputs[input].values && inputs[input].values == inputs[input - 2].values &&
        inputs[input + 1].values == inputs[input - 1].values) {
      coefficient.kind = Coefficient::kSame;
    } else {
      RETURN_IF_ERROR(read_kind(inputs, input, &coefficient));
    }
    const bool is_convolution = coefficient.kind == Coefficient::kConvolution;
    if (is_convolution && attributes.signed_velocity && input < kDiffusionX) coefficient.kind = Coefficient::kSigned;
    input += 2;
  }
  RETURN_IF_ERROR(read_kind(inputs, kSource, &layer->source));
  OrtValue* output;
  const int64_t sides[] = {shape.sides[0], shape.sides[3], shape.sides[1], shape.sides[2]};
  RETURN_IF_ERROR(api->KernelContext_GetOutput(context, 0, sides, 4, &output));
  return api->GetTensorMutableData(output, reinterpret_cast<void**>(&layer->output));
}

// Permutes the sides and their symbolic names: (N, H, W, C) -> (N, C, H, W).
inline OrtStatus* set_output_sides(OrtTensorTypeAndShapeInfo* output, const OrtTensorTypeAndShapeInfo* input) {
  int64_t sides[4];
  const char* names[4];
  RETURN_IF_ERROR(api->GetDimensions(input, sides, 4));
  RETURN_IF_ERROR(api->GetSymbolicDimensions(input, names, 4));
  const int64_t output_sides[] = {sides[0], sides[3], sides[1], sides[2]};
  const char* output_names[] = {names[0], names[3], names[1], names[2]};
  RETURN_IF_ERROR(api->SetTensorElementType(output, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
  RETURN_IF_ERROR(api->SetDimensions(output, output_sides, 4));
  return api->SetSymbolicDimensions(output, output_names, 4);
}

inline OrtStatus* infer_shape(const OrtCustomOp*, OrtShapeInferContext* context) {
  OrtTensorTypeAndShapeInfo *input, *output;
  size_t rank;
  RETURN_IF_ERROR(api->ShapeInferContext_GetInputTypeShape(context, kH, &input));
  RETURN_IF_ERROR(api->GetDimensionsCount(input, &rank));
  if (rank != 4) return nullptr;  // unknown
  RETURN_IF_ERROR(api->CreateTensorTypeAndShapeInfo(&output));
  OrtStatus* error = set_output_sides(output, input);
  if (!error) error = api->ShapeInferContext_SetOutputTypeShape(context, 0, output);
  api->ReleaseTensorTypeAndShapeInfo(output);
  return error;
}

// ONNX Runtime before 1.24 crashes in shape inference if an optional input is absent (its pull request 26199).
inline bool can_infer_shapes(const char* runtime_version) {
  int major = 0, minor = 0;
  sscanf(runtime_version, "%d.%d", &major, &minor);
  return major > 1 || minor >= 24;
}

// malloc and free in place of new and delete keep the library independent of the C++ runtime.
template <typename Kernel>
void destroy_kernel(void* kernel) {
  static_cast<Kernel*>(kernel)->~Kernel();
  free(kernel);
}

template <typename Kernel>
OrtStatus* create_kernel(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** result) {
  void* const memory = malloc(sizeof(Kernel));
  if (!memory) return out_of_memory();
  Kernel* const kernel = new (memory) Kernel;
  if (OrtStatus* error = kernel->initialize(info)) {
    destroy_kernel<Kernel>(kernel);
    return error;
  }
  *result = kernel;
  ++kernels_created;
  return nullptr;
}

template <typename Kernel>
OrtCustomOp make_operator(decltype(OrtCustomOp::InferOutputShapeFn) infer_shape) {
  OrtCustomOp op{};
  op.version = kOrtCustomOpVersion;
  op.GetName = [](const OrtCustomOp*) { return "GlobalLayer"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return Kernel::kProvider; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == kH || index == kScale || index == kShift ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = op.GetInputType;
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetStartVersion = [](const OrtCustomOp*) { return kVersion; };
  op.GetEndVersion = op.GetStartVersion;
  op.InferOutputShapeFn = infer_shape;
  op.CreateKernelV2 = create_kernel<Kernel>;
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return static_cast<const Kernel*>(kernel)->compute(context);
  };
  op.KernelDestroy = destroy_kernel<Kernel>;
  return op;
}

template <typename Kernel>
const OrtCustomOp kOperator = make_operator<Kernel>(infer_shape);
template <typename Kernel>
const OrtCustomOp kOperatorWithoutShapes = make_operator<Kernel>(nullptr);

// Adds the operator to the options of a session. A Kernel is a node of the graph: it has initialize and compute, and in
// kProvider the execution provider, null for CPUs.
template <typename Kernel>
OrtStatus* add_operator(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtCustomOp* const op =
      can_infer_shapes(base->GetVersionString()) ? &kOperator<Kernel> : &kOperatorWithoutShapes<Kernel>;
  static std::atomic<OrtCustomOpDomain*> shared;  // by all sessions; never released
  OrtCustomOpDomain* domain = shared;
  if (!domain) {
    RETURN_IF_ERROR(api->CreateCustomOpDomain("pdeinfer", &domain));
    RETURN_IF_ERROR(api->CustomOpDomain_Add(domain, op));
    OrtCustomOpDomain* earlier = nullptr;
    if (!shared.compare_exchange_strong(earlier, domain)) {
      api->ReleaseCustomOpDomain(domain);
      domain = earlier;
    }
  }
  return api->AddCustomOpDomain(options, domain);
}

}  // namespace pdeinfer

#define EXPORTED extern "C" __attribute__((visibility("default")))
