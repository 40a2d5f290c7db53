// The scheme of pdeinfer/pde.py on a GPU.
//
// The library contains this text, and NVRTC compiles it for the GPU that is there. The tests compile it as C++ and run
// its threads on the CPU.
#include "cuda_layer.h"

namespace pdeinfer {
namespace {

// Unlike max(x, 0), it keeps NaN.
__device__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

// The factors of H[k] at the four neighbours and at the point itself, divided by L; and 1 / L.
struct Factors {
  float right, left, below, above, here, inverse;
};

// Returns the factors at a point. The convergence is minus the divergence of the Courant numbers.
__device__ Factors factors_of(float courant_x, float courant_y, float diffusion_x, float diffusion_y,
                              float convergence) {
  const float spread_x = 2.0f * diffusion_x, spread_y = 2.0f * diffusion_y;
  const float inverse = 1.0f / (1.0f + spread_x + spread_y);
  return {(spread_x - courant_x) * inverse, (spread_x + courant_x) * inverse, (spread_y - courant_y) * inverse,
          (spread_y + courant_y) * inverse, convergence * inverse,            inverse};
}

// Returns H[k+1]; force is divided by L. The factor of H[k-1], M / L, is 1 minus the sum of the neighbours' factors.
__device__ float step(const Factors& factors, float force, float previous, float here, float east, float west,
                      float south, float north) {
  const float middle = 1.0f - ((factors.right + factors.left) + (factors.below + factors.above));
  return force + middle * previous + factors.here * here + factors.right * east + factors.left * west +
         factors.below * south + factors.above * north;
}

// Solves maps that fit into shared memory. A block has blockDim.z channels of one image, a thread kRows points of one
// column. Factors and values stay in registers over all steps; shared memory passes values to neighbours.
template <bool kOnly>  // whether there is one step only
__device__ void solve(const Layer& layer, float* shared) {
  const int height = layer.height, width = layer.width, channels = layer.channels;
  const int pitch = layer.pitch, stride = layer.stride, planes = blockDim.z;
  const int blocks = (channels + planes - 1) / planes;  // of an image
  const long long image = (long long)(blockIdx.x / blocks) * height * width * channels;
  const int first = blockIdx.x % blocks * planes, channel = first + threadIdx.z;
  const int x = threadIdx.x, top = threadIdx.y * kRows, below = height - top;
  const int rows = channel >= channels ? 0 : below < kRows ? below : kRows;  // of this thread

  // Copies the block's channels. Consecutive threads read consecutive channels, which are neighbours in memory.
  const auto load = [&](const float* tensor, float* maps) {
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * width + x;
    const int plane = thread % planes, column = thread / planes % width;
    if (first + plane >= channels) return;
    for (int y = thread / planes / width; y < height; y += blockDim.y) {
      maps[plane * stride + y * pitch + column] = tensor[image + (y * width + column) * channels + first + plane];
    }
  };
  // Three maps of this thread's channel. Two have the input and the Courant numbers along x, then H[k] of even and odd k.
  float* const even = shared + threadIdx.z * stride;
  float* const odd = even + planes * stride;
  float* const courant_y = odd + planes * stride;
  load(layer.input, shared);
  __syncthreads();

  float now[kRows], previous[kRows], force[kRows], numbers[kCoefficients][kRows];
  if (rows > 0) {
    float around[kRows + 2][3];  // zero outside the image
#pragma unroll
    for (int k = 0; k < kRows + 2; ++k) {
      const int y = top + k - 1;
      const bool is_inside = y >= 0 && y < height;
      const float* const row = even + y * pitch;
      around[k][0] = is_inside && x > 0 ? row[x - 1] : 0.0f;
      around[k][1] = is_inside ? row[x] : 0.0f;
      around[k][2] = is_inside && x < width - 1 ? row[x + 1] : 0.0f;
    }
    // Computes a coefficient or the source at the points of this thread.
    const auto compute = [&](const Coefficient& coefficient, float (&result)[kRows]) {
      const bool is_signed = coefficient.kind == Coefficient::kSigned;
      const bool is_convolution = coefficient.kind == Coefficient::kConvolution || is_signed;
      const float same = is_convolution                               ? coefficient.bias[channel]
                         : coefficient.kind == Coefficient::kConstant ? *coefficient.values
                                                                      : 0.0f;
#pragma unroll
      for (int k = 0; k < kRows; ++k) result[k] = same;
      if (is_convolution) {
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
          const float weight = coefficient.values[channel * 9 + tap];
#pragma unroll
          for (int k = 0; k < kRows; ++k) result[k] += weight * around[k + tap / 3][tap % 3];
        }
#pragma unroll
        for (int k = 0; k < kRows; ++k) result[k] = is_signed ? result[k] : relu(result[k]);
      } else if (coefficient.kind == Coefficient::kMap) {
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
          if (k < rows) result[k] = coefficient.values[image + ((top + k) * width + x) * channels + channel];
        }
      }
    };
#pragma unroll
    for (int i = 0; i < kCoefficients; ++i) {
      if (i % 2 == 0 || layer.coefficients[i].kind != Coefficient::kSame) {
        compute(layer.coefficients[i], numbers[i]);
        continue;
      }
#pragma unroll
      for (int k = 0; k < kRows; ++k) numbers[i][k] = numbers[i - i % 2][k];
    }
    if (layer.source.kind != Coefficient::kAbsent) compute(layer.source, force);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      now[k] = around[k + 1][1];
      force[k] = layer.source_factor * (layer.source.kind == Coefficient::kAbsent ? now[k] : force[k]);
      if (k >= rows) continue;
      odd[(top + k) * pitch + x] = numbers[0][k];
      courant_y[(top + k) * pitch + x] = numbers[1][k];
    }
  }
  __syncthreads();

  const int west = (x == 0 ? width : x) - 1, east = x == width - 1 ? 0 : x + 1;
  const int north = (top == 0 ? height : top) - 1, south = top + rows == height ? 0 : top + rows;
  Factors factors[kRows];
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k >= rows) continue;
    const int y = top + k, upper = k == 0 ? north : y - 1, lower = k == rows - 1 ? south : y + 1;
    const float convergence = odd[y * pitch + west] - odd[y * pitch + east] + courant_y[upper * pitch + x] -
                              courant_y[lower * pitch + x];
    factors[k] = factors_of(numbers[0][k], numbers[1][k], numbers[2][k], numbers[3][k], convergence);
    force[k] *= factors[k].inverse;
  }
  if (layer.start) load(layer.start, shared);
  if (layer.start || !kOnly) __syncthreads();
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (layer.start && k < rows) now[k] = even[(top + k) * pitch + x];
    previous[k] = now[k];
  }

  const int num_steps = kOnly ? 1 : layer.num_steps;
  for (int done = 0; done < num_steps; ++done) {
    const float* const level = done % 2 ? odd : even;
    float* const next = done % 2 ? even : odd;
    float above = level[north * pitch + x];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (k >= rows) continue;
      const float* const row = level + (top + k) * pitch;
      const float here = now[k], under = k + 1 < rows ? now[(k + 1) % kRows] : level[south * pitch + x];
      now[k] = step(factors[k], force[k], previous[k], here, row[east], row[west], under, above);
      previous[k] = above = here;
      if (done + 1 < num_steps) next[(top + k) * pitch + x] = now[k];
    }
    if (done + 1 < num_steps) __syncthreads();
  }
  if (rows == 0) return;
  const float scale = layer.scale[channel], shift = layer.shift[channel];
  float* const output = layer.output + image + (channel * height + top) * width + x;
#pragma unroll
  for (int k = 0; k < kRows; ++k) {
    if (k < rows) output[k * width] = relu(scale * now[k] + shift);
  }
}

// One step of maps that do not fit. A thread computes one value and, anew in each step, the coefficients that it needs.
__device__ void step_in_global_memory(const Layer& layer) {
  const int height = layer.height, width = layer.width, channels = layer.channels, size = height * width * channels;
  const int blocks = (size - 1) / (int)blockDim.x + 1;  // of an image
  const long long image = (long long)(blockIdx.x / blocks) * size;
  const int index = blockIdx.x % blocks * blockDim.x + threadIdx.x;
  if (index >= size) return;
  const int channel = index % channels, x = index / channels % width, y = index / channels / width;
  const int west = (x == 0 ? width : x) - 1, east = x == width - 1 ? 0 : x + 1;
  const int north = (y == 0 ? height : y) - 1, south = y == height - 1 ? 0 : y + 1;

  const auto place = [&](int row, int column) { return image + (row * width + column) * channels + channel; };
  const auto value = [&](const Coefficient& coefficient, int row, int column) {
    if (coefficient.kind == Coefficient::kConstant) return *coefficient.values;
    if (coefficient.kind == Coefficient::kMap) return coefficient.values[place(row, column)];
    if (coefficient.kind == Coefficient::kAbsent) return 0.0f;
    float sum = coefficient.bias[channel];
    for (int tap = 0; tap < 9; ++tap) {
      const int v = row + tap / 3 - 1, u = column + tap % 3 - 1;
      const bool is_inside = v >= 0 && v < height && u >= 0 && u < width;
      sum += coefficient.values[channel * 9 + tap] * (is_inside ? layer.input[place(v, u)] : 0.0f);
    }
    return coefficient.kind == Coefficient::kSigned ? sum : relu(sum);
  };
  const auto number = [&](int i, int row, int column) {
    const bool is_same = layer.coefficients[i].kind == Coefficient::kSame;
    return value(layer.coefficients[is_same ? i - 1 : i], row, column);
  };
  const float convergence = number(0, y, west) - number(0, y, east) + number(1, north, x) - number(1, south, x);
  const Factors factors =
      factors_of(number(0, y, x), number(1, y, x), number(2, y, x), number(3, y, x), convergence);
  const float* const level = layer.level;
  const float f = layer.source.kind == Coefficient::kAbsent ? layer.input[place(y, x)] : value(layer.source, y, x);
  const float force = layer.source_factor * f * factors.inverse;
  const float result = step(factors, force, layer.previous[place(y, x)], level[place(y, x)], level[place(y, east)],
                            level[place(y, west)], level[place(south, x)], level[place(north, x)]);
  if (layer.next) {
    layer.next[place(y, x)] = result;
  } else {
    layer.output[image + (channel * height + y) * width + x] =
        relu(layer.scale[channel] * result + layer.shift[channel]);
  }
}

}  // namespace
}  // namespace pdeinfer

extern "C" __global__ void __launch_bounds__(pdeinfer::kMostThreads) solve_one_step(const pdeinfer::Layer layer) {
  extern __shared__ float shared[];
  pdeinfer::solve<true>(layer, shared);
}

extern "C" __global__ void __launch_bounds__(pdeinfer::kMostThreads) solve(const pdeinfer::Layer layer) {
  extern __shared__ float shared[];
  pdeinfer::solve<false>(layer, shared);
}

extern "C" __global__ void step_in_global_memory(const pdeinfer::Layer layer) {
  pdeinfer::step_in_global_memory(layer);
}
