// The scheme of pdeinfer/pde.py on a block of LANES channels, compiled once for each instruction set.
//
// It must not use inline functions of other headers: the linker keeps one copy of them, which may be compiled for an
// instruction set that the CPU lacks. Intrinsics leave no copy.
#if LANES >= 8
#include <immintrin.h>
#endif

#include <utility>

#include "solver.h"

namespace pdeinfer {
namespace {

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float UnalignedVector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

// Per point, first the four coefficients, later the factors of H at the four neighbours, divided by L.
struct Numbers {
  Vector values[kCoefficients];
};
enum { kCourantX, kCourantY, kDiffusionX, kDiffusionY };
enum { kRight, kLeft, kBelow, kAbove };
static_assert(kCoefficients == 4, "one place for each");

// Per point, the factor of H there, from the divergence of the Courant numbers, and 2 dt f, both divided by L. Before
// the first step, a source that is not the input is f.
struct Rest {
  Vector here, source;
};

struct Convolution {
  Vector kernel[9], bias;
};

struct PackedWeights {
  Convolution convolutions[kConvolutions];
  Vector scale, shift;
};

// Unlike max(x, 0), it keeps NaN: of two values that do not compare, these instructions return the second.
inline Vector relu(Vector x) {
#if LANES == 16
  return _mm512_maskz_max_ps(0xffff, Vector{}, x);  // GCC 12 warns of _mm512_max_ps (bug 105593)
#elif LANES == 8
  return _mm256_max_ps(Vector{}, x);
#else
  return x < 0.0f ? Vector{} : x;
#endif
}

// Vectors in arrays stay in registers where every index is a constant: in loops that are unrolled and inlined.
#define INLINED __attribute__((always_inline))

template <typename Function, int... kIndex>
inline INLINED void unroll(Function function, std::integer_sequence<int, kIndex...>) {
  (function(std::integral_constant<int, kIndex>()), ...);
}

// Calls function(0) to function(kCount - 1) with constants.
template <int kCount, typename Function>
inline INLINED void unroll(Function function) {
  unroll(function, std::make_integer_sequence<int, kCount>());
}

template <int kDistance, int... kLane>
inline INLINED void exchange(Vector (&vectors)[LANES], std::integer_sequence<int, kLane...>) {
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
  typedef int32_t Indices __attribute__((vector_size(sizeof(Vector))));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Indices{__VA_ARGS__})
#endif
  unroll<LANES / 2>([&](auto i) INLINED {
    constexpr int first = i / kDistance * 2 * kDistance + i % kDistance, second = first + kDistance;
    const Vector a = vectors[first], b = vectors[second];
    vectors[first] = SHUFFLE(a, b, (kLane & kDistance ? LANES + kLane - kDistance : kLane)...);
    vectors[second] = SHUFFLE(a, b, (kLane & kDistance ? LANES + kLane : kLane + kDistance)...);
  });
#undef SHUFFLE
}

// Transposes LANES vectors by exchanging blocks of half their size, then of a quarter, and so on.
template <int kDistance = LANES / 2>
inline INLINED void transpose(Vector (&vectors)[LANES]) {
  exchange<kDistance>(vectors, std::make_integer_sequence<int, LANES>());
  if constexpr (kDistance > 1) transpose<kDistance / 2>(vectors);
}

// Assigns channels to lanes: a block of one image's channels, or, if a tensor has few, those of several images.
struct Lanes {
  int64_t first, channels, images, image_size;

  Lanes(int64_t block, int64_t channels, int64_t images, int64_t image_size)
      : first(block * LANES),
        channels(channels - first < LANES ? channels - first : LANES),
        images(images),
        image_size(image_size) {}

  Vector load(const float* values, int64_t channel_size = 1) const {
    values += first * channel_size;
    if (channels == LANES && channel_size == 1) return *reinterpret_cast<const UnalignedVector*>(values);
    Vector result{};
    for (int64_t image = 0; image < images; ++image) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        result[image * channels + channel] = values[image * image_size + channel * channel_size];
      }
    }
    return result;
  }

  // Stores the first `count` values of each lane; the channels are channel_size values apart.
  void store(const Vector (&values)[LANES], int64_t count, float* target, int64_t channel_size) const {
    target += first * channel_size;
    if (channels == LANES && count == LANES) {
      for (const Vector& value : values) {
        *reinterpret_cast<UnalignedVector*>(target) = value;
        target += channel_size;
      }
      return;
    }
    for (int64_t image = 0; image < images; ++image) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        const Vector& value = values[image * channels + channel];
        float* const start = target + image * image_size + channel * channel_size;
        for (int64_t i = 0; i < count; ++i) start[i] = value[i];
      }
    }
  }
};

int64_t images_together(int64_t channels) { return channels < LANES ? LANES / channels : 1; }

// A ring buffer of `rows` rows. Each has one more value at both ends, zero for the convolutions and the value of the
// opposite end for the steps, which spares the loops along a row a special case.
template <typename Value>
struct Grid {
  Value* memory;
  int64_t rows, width;

  Value* row(int64_t index) const {
    index = index < 0 ? index + rows : index >= rows ? index % rows : index;
    return memory + index * (width + 2) + 1;
  }
};

// Kernels and sums that fit into the registers: AVX-512 has 32 of them, the others 16.
constexpr int kKernels = LANES == 16 ? 2 : 1, kPoints = 4;

// Convolves kPoints points from x on with kKernels kernels. Each value is loaded once, for all points and kernels.
template <int kKernels, int kPoints, int kStride, bool kSigned>
inline INLINED void convolve_points(const Vector* const (&rows)[3], const Vector (&kernels)[kKernels][9],
                                    const Vector (&biases)[kKernels], int64_t x, Vector* result) {
  Vector sums[kKernels][kPoints];
  unroll<kKernels * kPoints>([&](auto i) INLINED { sums[i / kPoints][i % kPoints] = biases[i / kPoints]; });
  unroll<3 * (kPoints + 2)>([&](auto i) INLINED {
    constexpr int row = i / (kPoints + 2), column = i % (kPoints + 2);
    const Vector value = rows[row][x + column - 1];
    unroll<3 * kKernels>([&](auto j) INLINED {
      constexpr int tap = j / kKernels, kernel = j % kKernels, point = column - tap;
      if constexpr (point >= 0 && point < kPoints) sums[kernel][point] += kernels[kernel][3 * row + tap] * value;
    });
  });
  unroll<kKernels * kPoints>([&](auto i) INLINED {
    const Vector sum = sums[i / kPoints][i % kPoints];
    result[(x + i % kPoints) * kStride + i / kPoints] = kSigned ? sum : relu(sum);
  });
}

// Computes a row of kKernels coefficients; writes to that many of every kStride vectors of `result`.
template <int kKernels, int kStride, bool kSigned>
void convolve_row(const Vector* const (&rows)[3], const Convolution* convolutions, int64_t width, Vector* result) {
  Vector kernels[kKernels][9], biases[kKernels];
  unroll<9 * kKernels>([&](auto i) INLINED { kernels[i / 9][i % 9] = convolutions[i / 9].kernel[i % 9]; });
  unroll<kKernels>([&](auto i) INLINED { biases[i] = convolutions[i].bias; });
  int64_t x = 0;
  for (; x + kPoints <= width; x += kPoints) {
    convolve_points<kKernels, kPoints, kStride, kSigned>(rows, kernels, biases, x, result);
  }
  for (; x < width; ++x) convolve_points<kKernels, 1, kStride, kSigned>(rows, kernels, biases, x, result);
}

// Returns minus the divergence of the Courant numbers.
inline Vector convergence(Vector west, Vector east, const Numbers* above, const Numbers* below) {
  return west - east + above->values[kCourantY] - below->values[kCourantY];
}

template <bool kAdvection, bool kDiffusion>
class Block {
 public:
  Block(const Layer& layer, int64_t image, int64_t block, int64_t band, void* scratch)
      : layer_(layer),
        weights_(static_cast<const PackedWeights*>(layer.weights)[block]),
        lanes_(block, layer.channels, images_from(layer, image), layer.height * layer.width * layer.channels),
        height_(layer.height),
        width_(layer.width),
        first_row_(image * layer.height),
        is_streamed_(is_streamed(layer)),
        is_short_(!is_streamed_ && width_ < LANES),
        stages_(is_streamed_ ? kPreparation + layer.num_steps : kPreparation + 1) {
    const int64_t count = bands(layer), first = band * height_ / count;
    band_height_ = (band + 1) * height_ / count - first;
    offset_ = is_streamed_ ? first - (stages_ - 1) : 0;
    const int64_t rows = kept_rows(layer), stride = width_ + 2, size = rows * stride;
    numbers_ = {static_cast<Numbers*>(scratch), rows, width_};
    rest_ = {reinterpret_cast<Rest*>(numbers_.memory + size), rows, width_};
    input_ = {reinterpret_cast<Vector*>(rest_.memory + size), rows, width_};
    levels_[1] = {input_.memory + size, rows, width_};
    zeros_ = levels_[1].memory + size + 1;
    levels_[0] = layer.start ? Grid<Vector>{zeros_ + stride - 1, rows, width_} : input_;
    for (int64_t x = -1; x <= width_; ++x) zeros_[x] = Vector{};
  }

  static int64_t bands(const Layer& layer) {
    const int64_t rows = kBandRows * layer.num_steps;
    return is_streamed(layer) && layer.height > rows ? layer.height / rows : 1;
  }

  static size_t scratch_size(const Layer& layer) { return size_of(layer, kept_rows(layer)); }

  void solve() const {
    sweep(stages_, [this](int64_t stage, int64_t row) {
      if (stage == 0) load_input(row);
      if (stage == 1) compute_numbers(row);
      if (stage == 2) compute_convergence(row), wrap(levels_[0].row(row));
      if (stage == 3) layer_.num_steps > 1 ? take_first_step<false>(row) : take_first_step<true>(row);
      if (stage > 3) take_step(stage - kPreparation + 1, row);
    });
    for (int64_t done = stages_ - kPreparation; done < layer_.num_steps; done += kSweptSteps) {
      const int64_t left = layer_.num_steps - done;
      sweep(left < kSweptSteps ? left : kSweptSteps,
            [this, done](int64_t stage, int64_t row) { take_step(done + stage + 1, row); });
    }
    if (is_short_) finish_image();
  }

 private:
  static constexpr int kRestStride = sizeof(Rest) / sizeof(Vector);
  static constexpr int64_t kPreparation = 3;   // stages before the first step
  static constexpr int64_t kSweptSteps = 2;    // steps in a sweep if all rows are kept
  static constexpr int64_t kCached = 1 << 20;  // bytes that stay in a core's L2 cache
  // Rows in a band, per step. Neighbouring bands both compute the rows at their border; in large bands these are few.
  static constexpr int64_t kBandRows = 64;

  static int64_t images_from(const Layer& layer, int64_t image) {
    const int64_t left = layer.images - image, together = images_together(layer.channels);
    return left < together ? left : together;
  }

  static size_t size_of(const Layer& layer, int64_t rows) {
    const int64_t stride = layer.width + 2, size = rows * stride;
    return size * (sizeof(Numbers) + sizeof(Rest)) + ((layer.start ? 3 : 2) * size + stride) * sizeof(Vector);
  }

  // Returns whether the image is too large to keep: each row then passes all stages in one sweep and is overwritten.
  static bool is_streamed(const Layer& layer) {
    return size_of(layer, layer.height) > kCached && layer.num_steps < layer.height - kPreparation;
  }

  static int64_t kept_rows(const Layer& layer) {
    return is_streamed(layer) ? kPreparation + layer.num_steps + 1 : layer.height;
  }

  // Calls stage(s, row) for all stages and rows, soon after stage s - 1 has done that row and its two neighbours, while
  // they are in the cache. Each stage runs one row behind the previous one and starts one row further down. If all rows
  // are kept, a stage wraps around at the end to the rows it skipped. Otherwise it starts and ends outside the band, by
  // as many rows as there are stages after it.
  template <typename Stage>
  void sweep(int64_t stages, Stage stage) const {
    for (int64_t tick = 0; tick < band_height_ + 2 * (stages - 1); ++tick) {
      for (int64_t s = 0; s < stages; ++s) {
        if (tick < 2 * s || (!is_streamed_ && tick >= 2 * s + height_)) continue;
        int64_t row = tick - s;
        while (!is_streamed_ && row >= height_) row -= height_;
        stage(s, row);
      }
    }
  }

  // Returns the image's row for a row of the grids.
  int64_t image_row(int64_t row) const {
    const int64_t y = (row + offset_) % height_;
    return y < 0 ? y + height_ : y;
  }

  void load_row(const float* tensor, int64_t row, Vector* result, int64_t stride) const {
    const float* const values = tensor + (first_row_ + image_row(row)) * width_ * layer_.channels;
    for (int64_t x = 0; x < width_; ++x) result[x * stride] = lanes_.load(values + x * layer_.channels);
  }

  void load_input(int64_t row) const {
    Vector* const values = input_.row(row);
    load_row(layer_.input, row, values, 1);
    values[-1] = values[width_] = Vector{};
    if (layer_.start) load_row(layer_.start, row, levels_[0].row(row), 1);
  }

  void wrap(Vector* values) const {
    values[-1] = values[width_ - 1];
    values[width_] = values[0];
  }

  void compute_numbers(int64_t row) const {
    Numbers* const numbers = numbers_.row(row);
    for (int i = kAdvection ? kCourantX : kDiffusionX; i <= (kDiffusion ? kDiffusionY : kCourantY);) {
      i += compute_numbers_from(i, row, &numbers->values[i]);
    }
    numbers[-1].values[kCourantX] = numbers[width_ - 1].values[kCourantX];
    numbers[width_].values[kCourantX] = numbers[0].values[kCourantX];
    if (layer_.source.kind) compute<kRestStride>(layer_.source, kCoefficients, row, &rest_.row(row)->source);
  }

  // Computes a row of the coefficient with that index, and perhaps of the next; returns how many.
  int compute_numbers_from(int index, int64_t row, Vector* result) const {
    const Coefficient* const coefficient = &layer_.coefficients[index];
    const bool is_pair = index % 2 == 0 && coefficient[1].kind == coefficient->kind;
    if (kKernels == 2 && is_pair && coefficient->kind >= Coefficient::kConvolution) {
      convolve<kKernels, kCoefficients>(*coefficient, index, row, result);
      return kKernels;
    }
    compute<kCoefficients>(*coefficient, index, row, result);
    return 1;
  }

  // Computes a row of a coefficient or of the source, whose convolution has that index.
  template <int kStride>
  void compute(const Coefficient& coefficient, int index, int64_t row, Vector* result) const {
    if (coefficient.kind >= Coefficient::kConvolution) {
      convolve<1, kStride>(coefficient, index, row, result);
    } else if (coefficient.kind == Coefficient::kMap) {
      load_row(coefficient.map, row, result, kStride);
    } else if (coefficient.kind == Coefficient::kSame) {
      for (int64_t x = 0; x < width_; ++x) result[x * kStride] = result[x * kStride - 1];
    } else {
      for (int64_t x = 0; x < width_; ++x) result[x * kStride] = Vector{} + coefficient.constant;
    }
  }

  template <int kKernels, int kStride>
  void convolve(const Coefficient& coefficient, int index, int64_t row, Vector* result) const {
    const int64_t y = image_row(row);
    const Vector* const rows[] = {y == 0 ? zeros_ : input_.row(row - 1), input_.row(row),
                                  y == height_ - 1 ? zeros_ : input_.row(row + 1)};
    const bool is_signed = coefficient.kind == Coefficient::kSigned;
    const auto function = is_signed ? convolve_row<kKernels, kStride, true> : convolve_row<kKernels, kStride, false>;
    function(rows, &weights_.convolutions[index], width_, result);
  }

  void compute_convergence(int64_t row) const {
    if (!kAdvection || layer_.num_steps == 1) return;
    const Numbers *const above = numbers_.row(row - 1), *const here = numbers_.row(row),
                  *const below = numbers_.row(row + 1);
    Rest* const rest = rest_.row(row);
    for (int64_t x = 0; x < width_; ++x) {
      const Vector west = here[x - 1].values[kCourantX], east = here[x + 1].values[kCourantX];
      rest[x].here = convergence(west, east, above + x, below + x);
    }
  }

  // Computes H[1] from H[0] = H[-1] and the coefficients, and keeps the factors for further steps unless kOnly.
  template <bool kOnly>
  void take_first_step(int64_t row) const {
    Numbers *const numbers_above = numbers_.row(row - 1), *const numbers = numbers_.row(row),
            *const numbers_below = numbers_.row(row + 1);
    Rest* const rest = rest_.row(row);
    const Vector *const above = levels_[0].row(row - 1), *const here = levels_[0].row(row),
                 *const below = levels_[0].row(row + 1);
    const Vector* f = layer_.source.kind ? &rest->source : input_.row(row);
    const int64_t f_stride = layer_.source.kind ? kRestStride : 1;
    Vector* const next = levels_[1].row(kOnly && !is_short_ ? 0 : row);
    const float source = layer_.source_factor;
    const int64_t width = width_;
    // Each value of a row is loaded once and passed on to the next point.
    Vector west = here[-1], centre = here[0];
    Vector ax_west = numbers[-1].values[kCourantX], ax = numbers[0].values[kCourantX];
    for (int64_t x = 0; x < width; ++x) {
      Vector* const v = numbers[x].values;
      const Vector east = here[x + 1], ax_east = numbers[x + 1].values[kCourantX];
      Vector ay{}, bx{}, by{}, middle{}, inverse = Vector{} + 1.0f;
      if (kAdvection) {
        ay = v[kCourantY];
        middle = kOnly ? convergence(ax_west, ax_east, numbers_above + x, numbers_below + x) : rest[x].here;
      } else {
        ax = Vector{};
      }
      if (kDiffusion) {
        bx = 2.0f * v[kDiffusionX];
        by = 2.0f * v[kDiffusionY];
        inverse = 1.0f / (1.0f + bx + by);
      }
      const Vector right = bx - ax, left = bx + ax, down = by - ay, up = by + ay, force = source * *f;
      const Vector total = (middle + (1.0f - (bx + by))) * centre + force + right * east + left * west +
                           down * below[x] + up * above[x];
      next[x] = total * inverse;
      f += f_stride;
      west = centre;
      centre = east;
      ax_west = ax;
      ax = ax_east;
      if (kOnly) continue;
      v[kRight] = right * inverse;
      v[kLeft] = left * inverse;
      v[kBelow] = down * inverse;
      v[kAbove] = up * inverse;
      rest[x].here = middle * inverse;
      rest[x].source = force * inverse;
    }
    if (kOnly) {
      if (!is_short_) finish(next, row);
    } else {
      wrap(next);
    }
  }

  // Computes H[k], k > 1, in place of H[k-2]. Its factor M / L is 1 minus the sum of the neighbours' factors.
  void take_step(int64_t k, int64_t row) const {
    const Grid<Vector>& level = levels_[(k - 1) % 2];
    const Numbers* const numbers = numbers_.row(row);
    const Rest* const rest = rest_.row(row);
    const Vector *const above = level.row(row - 1), *const here = level.row(row), *const below = level.row(row + 1);
    Vector* const next = levels_[k % 2].row(row);
    Vector west = here[-1], middle = here[0];
    for (int64_t x = 0; x < width_; ++x) {
      const Vector* const v = numbers[x].values;
      const Vector right = v[kRight], left = v[kLeft], down = v[kBelow], up = v[kAbove], east = here[x + 1];
      Vector total = rest[x].source + right * east + left * west + down * below[x] + up * above[x];
      if (kAdvection) total += rest[x].here * middle;
      if (kDiffusion) {
        total += (1.0f - ((right + left) + (down + up))) * next[x];
      } else {
        total += next[x];
      }
      next[x] = total;
      west = middle;
      middle = east;
    }
    if (k < layer_.num_steps) {
      wrap(next);
    } else if (!is_short_) {
      finish(next, row);
    }
  }

  void finish(const Vector* result, int64_t row) const {
    float* const output = layer_.output + first_row_ * width_ * layer_.channels + image_row(row) * width_;
    int64_t x = 0;
    for (; x + LANES <= width_; x += LANES) {
      finish_points(LANES, output + x, [result, x](int64_t i) { return result + x + i; });
    }
    if (x < width_) finish_points(width_ - x, output + x, [result, x](int64_t i) { return result + x + i; });
  }

  // Writes the output of an image whose rows are short, LANES points at a time.
  void finish_image() const {
    const Grid<Vector>& level = levels_[layer_.num_steps % 2];
    float* const output = layer_.output + first_row_ * width_ * layer_.channels;
    const int64_t count = height_ * width_;
    const auto point = [&level, this](int64_t i) { return level.row(i / width_) + i % width_; };
    int64_t first = 0;
    for (; first + LANES <= count; first += LANES) {
      finish_points(LANES, output + first, [&point, first](int64_t i) { return point(first + i); });
    }
    if (first < count) finish_points(count - first, output + first, [&](int64_t i) { return point(first + i); });
  }

  // Writes the output of `count` points, at point(0), point(1), ...
  template <typename Point>
  INLINED void finish_points(int64_t count, float* output, Point point) const {
    const Vector scale = weights_.scale, shift = weights_.shift;
    Vector block[LANES];
    if (count == LANES) {
      unroll<LANES>([&](auto i) INLINED { block[i] = relu(scale * *point(i) + shift); });
    } else {
      for (int64_t i = 0; i < LANES; ++i) block[i] = i < count ? relu(scale * *point(i) + shift) : Vector{};
    }
    transpose(block);
    lanes_.store(block, count, output, height_ * width_);
  }

  const Layer& layer_;
  const PackedWeights& weights_;
  const Lanes lanes_;
  const int64_t height_, width_, first_row_;
  const bool is_streamed_;
  const bool is_short_;          // rows are shorter than LANES: the output treats all rows as one
  const int64_t stages_;         // in the first sweep
  int64_t band_height_, offset_;  // offset_: the image's row minus the grids' row
  Vector* zeros_;                // the row outside the image, for the convolutions
  Grid<Numbers> numbers_;
  Grid<Rest> rest_;
  Grid<Vector> input_, levels_[2];  // H[k] is in levels_[k % 2]
};

void solve(const Layer& layer, int64_t image, int64_t block, int64_t band, void* scratch) {
  const Coefficient* const c = layer.coefficients;
  const bool advection = c[0].kind || c[1].kind, diffusion = c[2].kind || c[3].kind;
  if (advection && diffusion) Block<true, true>(layer, image, block, band, scratch).solve();
  if (advection && !diffusion) Block<true, false>(layer, image, block, band, scratch).solve();
  if (!advection && diffusion) Block<false, true>(layer, image, block, band, scratch).solve();
  if (!advection && !diffusion) Block<false, false>(layer, image, block, band, scratch).solve();
}

size_t weights_size(int64_t channels) { return (channels + LANES - 1) / LANES * sizeof(PackedWeights); }

void pack(const Weights& weights, int64_t channels, void* packed) {
  for (int64_t block = 0; block * LANES < channels; ++block) {
    const Lanes lanes(block, channels, images_together(channels), 0);
    PackedWeights& result = static_cast<PackedWeights*>(packed)[block];
    for (int i = 0; i < kConvolutions; ++i) {
      if (!weights.kernels[i]) continue;
      for (int tap = 0; tap < 9; ++tap) result.convolutions[i].kernel[tap] = lanes.load(weights.kernels[i] + tap, 9);
      result.convolutions[i].bias = lanes.load(weights.biases[i]);
    }
    result.scale = lanes.load(weights.scale);
    result.shift = lanes.load(weights.shift);
  }
}

}  // namespace

const Solver SOLVER = {NAME,
                       LANES,
                       weights_size,
                       pack,
                       images_together,
                       Block<true, true>::bands,
                       Block<true, true>::scratch_size,
                       solve};

}  // namespace pdeinfer
