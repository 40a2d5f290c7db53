// The ONNX Runtime operator pdeinfer.GlobalLayer: describes itself to the runtime and divides its work among threads.
//
// It calls ONNX Runtime through the pointers that the runtime passes to RegisterCustomOps, and links against nothing.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomic>
#include <new>

#include "inputs.h"
#include "onnxruntime.h"
#include "scratch.h"
#include "solver.h"

namespace pdeinfer {
namespace {

constexpr uint32_t kApiVersion = 17;  // the first with shape inference and KernelContext_ParallelFor

constexpr int kVersion = 2;  // of the operator; the output of version 1 was (N, H, W, C)

thread_local int64_t kernels_created;

// Returns the best solver for this CPU, or the one that PDEINFER_KERNEL names: null if this CPU cannot run it.
const Solver* choose_solver() {
  const char* const name = getenv("PDEINFER_KERNEL");
  auto is_wanted = [name](const Solver& solver) { return !name || !*name || !strcmp(name, solver.name); };
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && is_wanted(kAvx512)) return &kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && is_wanted(kAvx2)) return &kAvx2;
#endif
  return is_wanted(kBaseline) ? &kBaseline : nullptr;
}

OrtStatus* no_solver() { return invalid("PDEINFER_KERNEL names no kernel of this CPU"); }

struct Job {
  const Solver& solver;
  const Layer& layer;
  int64_t images_together, blocks, bands;
  std::atomic<bool> is_out_of_memory{false};

  void solve(size_t index) {
    void* const scratch = scratch_pool.take(solver.scratch_size(layer));
    if (!scratch) {
      is_out_of_memory = true;
      return;
    }
    solver.solve(layer, index / (bands * blocks) * images_together, index / bands % blocks, index % bands, scratch);
    scratch_pool.give_back(scratch);
  }
};

// A node of the graph. It reads its constant inputs and packs its weights when the session is created.
class Kernel {
 public:
  ~Kernel() { free(packed_); }

  OrtStatus* initialize(const OrtKernelInfo* info) {
    RETURN_IF_ERROR(api->KernelInfoGetAttribute_int64(info, "num_steps", &num_steps_));
    RETURN_IF_ERROR(api->KernelInfoGetAttribute_float(info, "source", &source_));
    if (!solver_) return no_solver();
    if (num_steps_ < 1 || num_steps_ > kMostSteps) {
      return invalid("num_steps must be 1 to %lld, not %lld", static_cast<long long>(kMostSteps),
                     static_cast<long long>(num_steps_));
    }
    RETURN_IF_ERROR(api->KernelInfo_GetInputCount(info, &input_count_));
    bool is_constant[kInputs] = {};
    for (size_t i = kH + 1; i < input_count_; ++i) {
      const OrtValue* value;
      int constant;
      size_t name_length = 0;
      RETURN_IF_ERROR(api->KernelInfoGetConstantInput_tensor(info, i, &constant, &value));
      if (constant) RETURN_IF_ERROR(constants_[i].read(value, i));
      RETURN_IF_ERROR(api->KernelInfo_GetInputName(info, i, nullptr, &name_length));
      is_constant[i] = constant || name_length <= 1;  // an absent input has an empty name
    }
    for (int i = kH + 1; i < kStart; ++i) {
      const bool is_weight = i >= kScale || i % 2 == 0 || constants_[i + 1].values || !is_constant[i + 1];
      if (is_weight && !is_constant[i]) return nullptr;
    }
    return pack(constants_, constants_[kScale].shape.sides[0], &packed_);
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Tensor inputs[kInputs];
    for (size_t i = kH; i < kInputs; ++i) {
      inputs[i] = constants_[i];
      if (i >= input_count_ || inputs[i].values) continue;
      const OrtValue* value;
      RETURN_IF_ERROR(api->KernelContext_GetInput(context, i, &value));
      if (value) RETURN_IF_ERROR(inputs[i].read(value, i));
    }
    const Shape& shape = inputs[kH].shape;
    if (shape.rank != 4) return invalid("h must be of rank 4, (N, H, W, C), not %zu", shape.rank);

    Layer layer{};
    layer.images = shape.sides[0];
    layer.height = shape.sides[1];
    layer.width = shape.sides[2];
    layer.channels = shape.sides[3];
    layer.num_steps = num_steps_;
    layer.source = source_;
    layer.input = inputs[kH].values;
    layer.start = inputs[kStart].values;
    if (layer.start) RETURN_IF_ERROR(expect(inputs, kStart, shape));
    for (int i = 0; i < kCoefficients; ++i) {
      RETURN_IF_ERROR(read_coefficient(inputs, kCourantX + 2 * i, &layer.coefficients[i]));
    }
    OrtValue* output;
    const int64_t sides[] = {layer.images, layer.channels, layer.height, layer.width};
    RETURN_IF_ERROR(api->KernelContext_GetOutput(context, 0, sides, 4, &output));
    RETURN_IF_ERROR(api->GetTensorMutableData(output, reinterpret_cast<void**>(&layer.output)));

    void* packed = nullptr;
    if (packed_) {
      RETURN_IF_ERROR(expect(inputs, kScale, {1, {layer.channels}}));
      layer.weights = packed_;
    } else {
      RETURN_IF_ERROR(pack(inputs, layer.channels, &packed));
      layer.weights = packed;
    }
    OrtStatus* const error = solve(context, layer);
    free(packed);
    return error;
  }

 private:
  OrtStatus* pack(const Tensor* inputs, int64_t channels, void** packed) const {
    Weights weights{};
    for (int i = 0; i < kCoefficients; ++i) {
      const int input = kCourantX + 2 * i;
      if (!inputs[input + 1].values) continue;
      RETURN_IF_ERROR(expect(inputs, input, {4, {channels, 1, 3, 3}}));
      RETURN_IF_ERROR(expect(inputs, input + 1, {1, {channels}}));
      weights.kernels[i] = inputs[input].values;
      weights.biases[i] = inputs[input + 1].values;
    }
    RETURN_IF_ERROR(expect(inputs, kScale, {1, {channels}}));
    RETURN_IF_ERROR(expect(inputs, kShift, {1, {channels}}));
    weights.scale = inputs[kScale].values;
    weights.shift = inputs[kShift].values;
    *packed = allocate(solver_->weights_size(channels));
    if (!*packed) return out_of_memory();
    solver_->pack(weights, channels, *packed);
    return nullptr;
  }

  static OrtStatus* read_coefficient(const Tensor* inputs, int input, Coefficient* coefficient) {
    const Tensor &value = inputs[input], &bias = inputs[input + 1];
    if (bias.values) {
      coefficient->kind = Coefficient::kConvolution;
    } else if (value.values && value.shape == Shape{4, {1, 1, 1, 1}}) {
      coefficient->kind = Coefficient::kConstant;
      coefficient->constant = *value.values;
    } else if (value.values) {
      RETURN_IF_ERROR(expect(inputs, input, inputs[kH].shape));
      coefficient->kind = Coefficient::kMap;
      coefficient->map = value.values;
    }
    return nullptr;
  }

  OrtStatus* solve(OrtKernelContext* context, const Layer& layer) const {
    const int64_t values = layer.images * layer.height * layer.width * layer.channels;
    if (values == 0) return nullptr;
    const int64_t together = solver_->images_together(layer.channels);
    const int64_t blocks = (layer.channels + solver_->lanes - 1) / solver_->lanes;
    Job job{*solver_, layer, together, blocks, solver_->bands(layer)};
    const int64_t count = (layer.images + together - 1) / together * job.blocks * job.bands;
    if (values * (layer.num_steps + kPreparation) <= kAlone) {
      for (int64_t i = 0; i < count; ++i) job.solve(i);
    } else {
      auto solve_one = [](void* data, size_t index) { static_cast<Job*>(data)->solve(index); };
      RETURN_IF_ERROR(api->KernelContext_ParallelFor(context, solve_one, count, 0, &job));
    }
    return job.is_out_of_memory ? out_of_memory() : nullptr;
  }

  // The preparation takes as long as three steps. A layer with at most kAlone value-steps, about 6 us of work, runs on
  // the calling thread: it finishes before another thread would start.
  static constexpr int64_t kPreparation = 3, kAlone = 1 << 15;

  // An upper limit, because a running node cannot be interrupted.
  static constexpr int64_t kMostSteps = 1000;

  const Solver* solver_ = choose_solver();
  int64_t num_steps_;
  float source_;
  size_t input_count_;
  Tensor constants_[kInputs] = {};
  void* packed_ = nullptr;  // null if a weight is not constant
};

// Permutes the sides and their symbolic names: (N, H, W, C) -> (N, C, H, W).
OrtStatus* set_output_sides(OrtTensorTypeAndShapeInfo* output, const OrtTensorTypeAndShapeInfo* input) {
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

OrtStatus* infer_shape(const OrtCustomOp*, OrtShapeInferContext* context) {
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

// malloc and free in place of new and delete keep the library independent of the C++ runtime.
void destroy_kernel(void* kernel) {
  static_cast<Kernel*>(kernel)->~Kernel();
  free(kernel);
}

OrtStatus* create_kernel(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** result) {
  void* const memory = malloc(sizeof(Kernel));
  if (!memory) return out_of_memory();
  Kernel* const kernel = new (memory) Kernel;
  if (OrtStatus* error = kernel->initialize(info)) {
    destroy_kernel(kernel);
    return error;
  }
  *result = kernel;
  ++kernels_created;
  return nullptr;
}

// ONNX Runtime before 1.24 crashes in shape inference if an optional input is absent (its pull request 26199).
bool can_infer_shapes(const char* runtime_version) {
  int major = 0, minor = 0;
  sscanf(runtime_version, "%d.%d", &major, &minor);
  return major > 1 || minor >= 24;
}

OrtCustomOp make_operator(decltype(OrtCustomOp::InferOutputShapeFn) infer_shape) {
  OrtCustomOp op{};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "GlobalLayer"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
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
  op.CreateKernelV2 = create_kernel;
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return static_cast<const Kernel*>(kernel)->compute(context);
  };
  op.KernelDestroy = destroy_kernel;
  return op;
}

const OrtCustomOp kOperator = make_operator(infer_shape), kOperatorWithoutShapes = make_operator(nullptr);

}  // namespace
}  // namespace pdeinfer

#define EXPORTED extern "C" __attribute__((visibility("default")))

// ONNX Runtime calls this for every session whose options name the library.
EXPORTED OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace pdeinfer;
  api.pointer = base->GetApi(kApiVersion);
  if (!api.pointer) return nullptr;  // the runtime is too old: it runs without the operator
  if (!choose_solver()) return no_solver();
  const OrtCustomOp* const op = can_infer_shapes(base->GetVersionString()) ? &kOperator : &kOperatorWithoutShapes;
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

// Returns how many nodes run in this operator, over all sessions that this thread has created.
EXPORTED int64_t pdeinfer_kernels_created() { return pdeinfer::kernels_created; }
