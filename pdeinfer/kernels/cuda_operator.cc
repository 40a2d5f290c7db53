// The ONNX Runtime operator pdeinfer.GlobalLayer for CUDA: chooses a kernel of cuda_solver.cu and launches it.
#include <limits.h>
#include <pthread.h>

#include "cuda_code.h"
#include "cuda_driver.h"
#include "cuda_layer.h"
#include "old_glibc.h"
#include "operator.h"

// The tests' build names the CPU's.
#ifndef PROVIDER
#define PROVIDER "CUDAExecutionProvider"
#endif

namespace pdeinfer {
namespace {

Driver driver;
const char* missing;  // from the driver, or null
int initialize_error;

OrtStatus* open_driver() {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, [] {
    missing = driver.open();
    if (!missing) initialize_error = driver.initialize(0);
  });
  if (missing) return device_error("there is no %s", missing);
  return check(driver, "cuInit", initialize_error);
}

// The threads of a launch.
struct Grid {
  int64_t blocks;
  int x, y, z;  // threads of a block
  int shared_floats;
};

// Divides a layer among blocks, or returns false if its maps do not fit into shared memory.
//
// Small batches leave multiprocessors idle, and get blocks of fewer channels. All others get so many channels that a
// block reads whole sectors of memory. Where the rows allow it, the threads of a warp read different banks of shared
// memory: the bank of a thread's point is its own number, modulo 32.
bool divide(Layer* layer, int multiprocessors, Grid* grid) {
  const int64_t strips = (layer->height + kRows - 1) / kRows, threads = layer->width * strips;  // of a channel
  if (threads > kMostThreads) return false;
  const auto set_pitch = [=](int pitch) {
    layer->pitch = pitch;
    layer->stride = pitch * layer->height;
    while ((layer->stride - threads) % 32) ++layer->stride;
  };
  int pitch = layer->width;
  while (layer->width % 4 == 0 && (kRows * pitch - layer->width) % 32) ++pitch;
  set_pitch(pitch);
  if (3 * layer->stride > kSharedFloats) set_pitch(layer->width);

  const auto blocks = [&](int planes) {
    return static_cast<int64_t>(layer->images) * ((layer->channels + planes - 1) / planes);
  };
  int planes = kMostPlanes;
  while (planes > 1 && (planes * threads > kMostThreads || 3 * planes * layer->stride > kSharedFloats ||
                        blocks(planes) < multiprocessors)) {
    planes /= 2;
  }
  if (planes > layer->channels) planes = layer->channels;
  *grid = {blocks(planes), layer->width, static_cast<int>(strips), planes, 3 * planes * layer->stride};
  return true;
}

// A node of the graph. Its kernels are loaded when the session is created: when it runs, it only launches.
class Kernel {
 public:
  static constexpr const char* kProvider = PROVIDER;

  ~Kernel() {
    if (allocator_) api->ReleaseAllocator(allocator_);
  }

  OrtStatus* initialize(const OrtKernelInfo* info) {
    RETURN_IF_ERROR(attributes_.read(info));
    RETURN_IF_ERROR(api->KernelInfo_GetInputCount(info, &input_count_));
    RETURN_IF_ERROR(api->KernelInfoGetAllocator(info, OrtMemTypeDefault, &allocator_));
    RETURN_IF_ERROR(api->AllocatorGetInfo(allocator_, &memory_));
    int ordinal, device;
    void* library;
    RETURN_IF_ERROR(api->MemoryInfoGetId(memory_, &ordinal));
    RETURN_IF_ERROR(check(driver, "cuDeviceGet", driver.get_device(&device, ordinal)));
    RETURN_IF_ERROR(check(driver, "cuDeviceGetAttribute",
                          driver.get_attribute(&multiprocessors_, Driver::kMultiprocessors, device)));
    RETURN_IF_ERROR(load_kernels(driver, device, &library));
    RETURN_IF_ERROR(find(library, attributes_.num_steps == 1 ? "solve_one_step" : "solve", &solve_));
    return find(library, "step_in_global_memory", &step_in_global_memory_);
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Tensor inputs[kInputs] = {};
    for (size_t i = kH; i < input_count_; ++i) {
      const OrtValue* value;
      RETURN_IF_ERROR(api->KernelContext_GetInput(context, i, &value));
      if (value) RETURN_IF_ERROR(inputs[i].read(value, i));
    }
    Layer layer{};
    RETURN_IF_ERROR(read_layer(context, attributes_, inputs, &layer));
    RETURN_IF_ERROR(check_weights(inputs, layer.channels));
    layer.scale = inputs[kScale].values;
    layer.shift = inputs[kShift].values;
    for (int i = 0; i < kCoefficients; ++i) {
      Coefficient& coefficient = layer.coefficients[i];
      coefficient.values = inputs[kCourantX + 2 * i].values;
      coefficient.bias = inputs[kCourantX + 2 * i + 1].values;
    }
    layer.source.values = inputs[kSource].values;
    layer.source.bias = inputs[kSource + 1].values;
    // The kernels count images, and the values of an image, in ints.
    const int64_t* const sides = inputs[kH].shape.sides;
    int64_t values;
    if (sides[0] > INT_MAX || __builtin_mul_overflow(sides[1], sides[2], &values) ||
        __builtin_mul_overflow(values, sides[3], &values) || values > INT_MAX - kMostThreads) {
      return invalid("h is too large: %s", to_text(inputs[kH].shape).characters);
    }
    if (layer.images == 0 || values == 0) return nullptr;
    void* stream;
    RETURN_IF_ERROR(api->KernelContext_GetGPUComputeStream(context, &stream));
    Grid grid;
    if (divide(&layer, multiprocessors_, &grid)) return launch(solve_, grid, layer, stream);
    return solve_in_global_memory(context, layer, values, stream);
  }

 private:
  static OrtStatus* find(void* library, const char* name, void** kernel) {
    return check(driver, "cuLibraryGetKernel", driver.get_kernel(kernel, library, name));
  }

  static OrtStatus* launch(void* kernel, const Grid& grid, const Layer& layer, void* stream) {
    if (grid.blocks > INT_MAX) return invalid("h has too many images: %d", layer.images);
    void* arguments[] = {const_cast<Layer*>(&layer)};
    return check(driver, "cuLaunchKernel",
                 driver.launch(kernel, grid.blocks, 1, 1, grid.x, grid.y, grid.z, grid.shared_floats * sizeof(float),
                               stream, arguments, nullptr));
  }

  // Takes memory that no other stream has. Without a stream, ONNX Runtime 1.20 crashes in GetScratchBuffer.
  OrtStatus* allocate(OrtKernelContext* context, void* stream, int64_t floats, void** memory) const {
    const size_t bytes = floats * sizeof(float);
    RETURN_IF_ERROR(stream ? api->KernelContext_GetScratchBuffer(context, memory_, bytes, memory)
                           : api->AllocatorAlloc(allocator_, bytes, memory));
    return *memory ? nullptr : out_of_memory();
  }

  // Launches a kernel for each step. H[1] and H[2] go to two buffers; H[k] replaces H[k-2], which is read last for it.
  OrtStatus* solve_in_global_memory(OrtKernelContext* context, Layer layer, int64_t values, void* stream) const {
    const int64_t count = layer.images * values, num_steps = attributes_.num_steps;
    void* memory = nullptr;
    if (num_steps > 1) RETURN_IF_ERROR(allocate(context, stream, (num_steps > 2 ? 2 : 1) * count, &memory));
    float* const buffer = static_cast<float*>(memory);
    layer.level = layer.previous = layer.start ? layer.start : layer.input;
    OrtStatus* error = nullptr;
    const Grid grid = {layer.images * ((values - 1) / kThreads + 1), kThreads, 1, 1, 0};
    for (int64_t done = 0; !error && done < num_steps; ++done) {
      layer.next = done + 1 < num_steps ? buffer + done % 2 * count : nullptr;
      error = launch(step_in_global_memory_, grid, layer, stream);
      layer.previous = layer.level;
      layer.level = layer.next;
    }
    // The stream's order protects it: what takes the memory next runs after these kernels.
    OrtStatus* const free_error = memory ? api->AllocatorFree(allocator_, memory) : nullptr;
    return error ? error : free_error;
  }

  static constexpr int kThreads = 256;  // of a block, for maps in global memory

  Attributes attributes_;
  size_t input_count_;
  int multiprocessors_;
  OrtAllocator* allocator_ = nullptr;  // of ONNX Runtime, for the GPU's memory
  const OrtMemoryInfo* memory_;        // the allocator's
  void *solve_, *step_in_global_memory_;
};

}  // namespace
}  // namespace pdeinfer

// ONNX Runtime calls this for every session whose options name the library.
EXPORTED OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  using namespace pdeinfer;
  if (!use_api(base)) return nullptr;  // it runs without the operator
  RETURN_IF_ERROR(open_driver());
  return add_operator<Kernel>(options, base);
}

// Returns how many nodes run in this operator, over all sessions that this thread has created.
EXPORTED int64_t pdeinfer_kernels_created() { return pdeinfer::kernels_created; }
