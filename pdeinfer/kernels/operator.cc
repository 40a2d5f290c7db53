// The ONNX Runtime operator pdeinfer.GlobalLayer for CPUs: packs its weights and divides its work among threads.
//
// It calls ONNX Runtime through the pointers that the runtime passes to RegisterCustomOps, and links against nothing.
#include <stdlib.h>
#include <string.h>

#include <atomic>

#include "operator.h"
#include "scratch.h"
#include "solver.h"

namespace pdeinfer {
namespace {

// Returns the blocks that a solver divides channels into.
int64_t count_blocks(const Solver& solver, int64_t channels) { return (channels + solver.lanes - 1) / solver.lanes; }

// Returns the best solver for this CPU and that many channels, or the one that PDEINFER_KERNEL names: null if this CPU
// cannot run it.
const Solver* choose_solver(int64_t channels) {
  const char* const name = getenv("PDEINFER_KERNEL");
  auto is_wanted = [name](const Solver& solver) { return !name || !*name || !strcmp(name, solver.name); };
#ifdef __x86_64__
  const bool avx512 = __builtin_cpu_supports("avx512f") && is_wanted(kAvx512);
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && is_wanted(kAvx2);
  // Memory limits the speed: empty lanes of AVX-512 cost more than its lanes in use gain.
  const bool is_half_empty = count_blocks(kAvx2, channels) < 2 * count_blocks(kAvx512, channels);
  if (avx512 && !(avx2 && is_half_empty)) return &kAvx512;
  if (avx2) return &kAvx2;
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

// Returns the input of a coefficient, or of the source, which comes after them.
int input_of(int index) { return index < kCoefficients ? kCourantX + 2 * index : kSource; }

// A node of the graph. It reads its constant inputs and packs its weights when the session is created.
class Kernel {
 public:
  static constexpr const char* kProvider = nullptr;

  ~Kernel() { free(packed_); }

  OrtStatus* initialize(const OrtKernelInfo* info) {
    RETURN_IF_ERROR(attributes_.read(info));
    RETURN_IF_ERROR(api->KernelInfo_GetInputCount(info, &input_count_));
    bool is_constant[kInputs];
    for (size_t i = kH + 1; i < kInputs; ++i) {
      is_constant[i] = i >= input_count_;  // absent
      if (is_constant[i]) continue;
      const OrtValue* value;
      int constant;
      size_t name_length = 0;
      RETURN_IF_ERROR(api->KernelInfoGetConstantInput_tensor(info, i, &constant, &value));
      if (constant) RETURN_IF_ERROR(constants_[i].read(value, i));
      RETURN_IF_ERROR(api->KernelInfo_GetInputName(info, i, nullptr, &name_length));
      is_constant[i] = constant || name_length <= 1;  // an absent input has an empty name
    }
    const int64_t channels = constants_[kScale].shape.sides[0];  // 0 if it is not constant
    solver_ = choose_solver(channels);
    if (!solver_) return no_solver();
    for (int i = kH + 1; i < kInputs; ++i) {
      if (i == kStart) continue;
      const bool is_bias = i < kScale ? i % 2 == 0 : i == kSource + 1;
      const bool is_norm = i == kScale || i == kShift;
      if ((is_norm || is_bias || constants_[i + 1].values || !is_constant[i + 1]) && !is_constant[i]) return nullptr;
    }
    return pack(constants_, channels, &packed_);
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
    Layer layer{};
    RETURN_IF_ERROR(read_layer(context, attributes_, inputs, &layer));
    for (int i = 0; i < kConvolutions; ++i) {
      Coefficient& coefficient = i < kCoefficients ? layer.coefficients[i] : layer.source;
      const float* const values = inputs[input_of(i)].values;
      if (coefficient.kind == Coefficient::kConstant) coefficient.constant = *values;
      if (coefficient.kind == Coefficient::kMap) coefficient.map = values;
    }

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
    RETURN_IF_ERROR(check_weights(inputs, channels));
    Weights weights{};
    for (int i = 0; i < kConvolutions; ++i) {
      const int input = input_of(i);
      if (!inputs[input + 1].values) continue;
      weights.kernels[i] = inputs[input].values;
      weights.biases[i] = inputs[input + 1].values;
    }
    weights.scale = inputs[kScale].values;
    weights.shift = inputs[kShift].values;
    *packed = allocate(solver_->weights_size(channels));
    if (!*packed) return out_of_memory();
    solver_->pack(weights, channels, *packed);
    return nullptr;
  }

  OrtStatus* solve(OrtKernelContext* context, const Layer& layer) const {
    const int64_t values = layer.images * layer.height * layer.width * layer.channels;
    if (values == 0) return nullptr;
    const int64_t together = solver_->images_together(layer.channels);
    Job job{*solver_, layer, together, count_blocks(*solver_, layer.channels), solver_->bands(layer)};
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

  const Solver* solver_;
  Attributes attributes_;
  size_t input_count_;
  Tensor constants_[kInputs] = {};
  void* packed_ = nullptr;  // null if a weight is not constant
};

}  // namespace
}  // namespace pdeinfer

// ONNX Runtime calls this for every session whose options name the library.
EXPORTED OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace pdeinfer;
  if (!use_api(base)) return nullptr;  // it runs without the operator
  if (!choose_solver(0)) return no_solver();
  return add_operator<Kernel>(options, base);
}

// Returns how many nodes run in this operator, over all sessions that this thread has created.
EXPORTED int64_t pdeinfer_kernels_created() { return pdeinfer::kernels_created; }
