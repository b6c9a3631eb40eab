// What networks on pictures do on a GPU; `maps.py` launches it.
//
// Compiled at run time by CuPy, with contraction to fused multiply-adds. Nothing is
// included, and names differ from those of `kernels.cu`: the tests compile both files
// together for the host.
//
// Maps lie channel by channel: `length` elements each, `image` of them for an image,
// `row` for a row, of which the first `height` rows and `width` columns are pixels and
// the rest is zero. Pointers are to the first pixel; before it and after the last one
// there is memory, so that every tap of a pixel can be read.
//
// All sums are taken in an order that is always the same.

using Index = long long;

// Where an element of some maps is in its image.
struct Spot {
    int image, y, x;
    bool pixel;
};

__device__ Spot spot_of(int m, int length, int image, int row, int height, int width)
{
    const int n = m / image, rest = m - n * image, y = rest / row, x = rest - y * row;
    return {n, y, x, m < length && y < height && x < width};
}

// The most threads of a block that takes sums.
constexpr int summing = 256;

// The sum of a block's values, for all its threads; blockDim is a power of two.
template <typename S> __device__ S block_sum(S value)
{
    __shared__ S sums[summing];
    __syncthreads();
    sums[threadIdx.x] = value;
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

// --- convolutions

constexpr int convolving = 128;  // threads of a block
constexpr int maps_together = 16;  // output maps that a thread computes
constexpr int depth = 32;  // input maps whose weights are loaded at a time

// out[o, m] <- (adds: +) sum over taps and c of W[o, tap, c] in[c, place of the tap].
//
// The place is (multiply (y, x) + sign tap) / divide, and where that leaves a remainder
// the tap counts nothing: divide = 1 for a convolution of some stride, multiply = 1 and
// sign = -1 for its gradient. Grid x: elements; grid y: output maps.
template <typename T, int columns>
__global__ void convolve(Index size, Index inputs, Index outputs, Index in_length,
                         Index in_image, Index in_row, Index length, Index image,
                         Index row, Index height, Index width, Index multiply,
                         Index divide, Index sign, Index w_out, Index w_in, Index adds,
                         const T* W, const T* in, T* out)
{
    alignas(16) __shared__ T w[depth][maps_together];
    const int reach = size / 2, taps = size * size, side = size;
    const int first = blockIdx.y * maps_together;
    const int w_tap = w_in == 1 ? inputs : outputs;
    const int channels = inputs, all = outputs, stride = in_length;
    T sum[columns][maps_together];
    Spot spot[columns];
#pragma unroll
    for (int j = 0; j < columns; ++j) {
        const int m = (blockIdx.x * columns + j) * convolving + threadIdx.x;
        spot[j] = spot_of(m, length, image, row, height, width);
#pragma unroll
        for (int o = 0; o < maps_together; ++o)
            sum[j][o] = 0;
    }
    for (int tap = 0; tap < taps; ++tap) {
        const int dy = tap / side - reach, dx = tap % side - reach;
        bool valid[columns];
        const T* from[columns];
#pragma unroll
        for (int j = 0; j < columns; ++j) {
            int y = spot[j].y * int(multiply) + int(sign) * dy;
            int x = spot[j].x * int(multiply) + int(sign) * dx;
            valid[j] = spot[j].pixel;
            if (divide > 1) {
                valid[j] = valid[j] && y % int(divide) == 0 && x % int(divide) == 0;
                y /= int(divide);
                x /= int(divide);
            }
            from[j] = in + (spot[j].image * int(in_image) + y * int(in_row) + x);
        }
        for (int start = 0; start < channels; start += depth) {
            const int some = channels - start < depth ? channels - start : depth;
            __syncthreads();
            for (int i = threadIdx.x; i < some * maps_together; i += convolving) {
                const int c = i / maps_together, o = i % maps_together;
                T value = 0;
                if (first + o < all)
                    value = W[(first + o) * w_out + tap * w_tap + (start + c) * w_in];
                w[c][o] = value;
            }
            __syncthreads();
#pragma unroll 4
            for (int c = 0; c < some; ++c) {
                T value[columns];
#pragma unroll
                for (int j = 0; j < columns; ++j)
                    value[j] = valid[j] ? from[j][c * stride] : T(0);
#pragma unroll
                for (int o = 0; o < maps_together; ++o)
#pragma unroll
                    for (int j = 0; j < columns; ++j)
                        sum[j][o] += w[c][o] * value[j];
            }
#pragma unroll
            for (int j = 0; j < columns; ++j)
                from[j] += some * stride;
        }
    }
#pragma unroll
    for (int j = 0; j < columns; ++j) {
        const int m = (blockIdx.x * columns + j) * convolving + threadIdx.x;
        if (m >= length)
            continue;
#pragma unroll
        for (int o = 0; o < maps_together; ++o) {
            if (first + o >= all)
                continue;
            T* const to = out + (first + o) * length + m;
            const T value = spot[j].pixel ? sum[j][o] : T(0);
            *to = adds ? *to + value : value;
        }
    }
}

constexpr int weighing = 256;  // threads of a block
constexpr int tile = 16;  // maps of either kind that a block combines
constexpr int groups = 4;  // groups of threads that share out the elements

// out[part, o, tap, c] <- sum over the part's elements m of d[o, m] in[c, place of tap]:
// the gradient of the weights, in parts. Grid x: tiles of o and c; grid y: parts, of
// which every one makes `groups`.
template <typename T, int size>
__global__ void weigh(Index inputs, Index outputs, Index in_length, Index in_image,
                      Index in_row, Index length, Index image, Index row, Index height,
                      Index width, Index multiply, const T* in, const T* d, T* out)
{
    constexpr int taps = size * size, reach = size / 2;
    constexpr int some = size <= 3 ? 32 : 8;  // elements at a time
    constexpr int rows = size <= 3 ? 4 : 1;  // of d that a thread combines at a time
    constexpr int turns = tile / 4 / rows;
    __shared__ T xs[taps][tile][some + 1];
    __shared__ T ds[tile][some + 1];
    const int across = (int(inputs) + tile - 1) / tile;
    const int c_first = blockIdx.x % across * tile, o_first = blockIdx.x / across * tile;
    const int c = threadIdx.x % tile, lane = threadIdx.x / tile % 4;
    const int group = threadIdx.x / (tile * 4);
    T sum[turns * rows][taps];
#pragma unroll
    for (int r = 0; r < turns * rows; ++r)
#pragma unroll
        for (int tap = 0; tap < taps; ++tap)
            sum[r][tap] = 0;
    const int pieces = (int(length) + some - 1) / some;
    for (int piece = blockIdx.y; piece < pieces; piece += gridDim.y) {
        __syncthreads();
        for (int i = threadIdx.x; i < tile * some; i += weighing) {
            const int o = i / some, k = i % some, m = piece * some + k;
            const bool there = o_first + o < outputs && m < length;
            ds[o][k] = there ? d[(o_first + o) * length + m] : T(0);
        }
        for (int i = threadIdx.x; i < taps * some; i += weighing) {
            const int tap = i / some, k = i % some, m = piece * some + k;
            const Spot at = spot_of(m, length, image, row, height, width);
            const int y = at.y * int(multiply) + tap / size - reach;
            const int x = at.x * int(multiply) + tap % size - reach;
            const T* const from = in + (at.image * int(in_image) + y * int(in_row) + x);
            for (int j = 0; j < tile; ++j) {
                const bool there = at.pixel && c_first + j < inputs;
                xs[tap][j][k] = there ? from[(c_first + j) * in_length] : T(0);
            }
        }
        __syncthreads();
        for (int k = group; k < some; k += groups) {
            T x[taps];
#pragma unroll
            for (int tap = 0; tap < taps; ++tap)
                x[tap] = xs[tap][c][k];
#pragma unroll
            for (int r = 0; r < turns * rows; ++r) {
                const T value = ds[lane * (turns * rows) + r][k];
#pragma unroll
                for (int tap = 0; tap < taps; ++tap)
                    sum[r][tap] += value * x[tap];
            }
        }
    }
    const Index part = blockIdx.y * groups + group;
#pragma unroll
    for (int r = 0; r < turns * rows; ++r) {
        const int o = o_first + lane * (turns * rows) + r;
        if (o >= outputs || c_first + c >= inputs)
            continue;
#pragma unroll
        for (int tap = 0; tap < taps; ++tap)
            out[((part * outputs + o) * taps + tap) * inputs + c_first + c] = sum[r][tap];
    }
}

// columns[tap, c, m] <- in[c, m + tap]. Grid x: elements; grid y: taps and channels.
template <typename T>
__global__ void fill_columns(Index size, Index channels, Index length, Index row,
                             const T* in, T* columns)
{
    const int tap = blockIdx.y / channels, c = blockIdx.y % channels;
    const int dy = tap / int(size) - int(size) / 2, dx = tap % int(size) - int(size) / 2;
    const Index m = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (m < length)
        columns[blockIdx.y * length + m] = in[c * length + m + dy * row + dx];
}

// --- batch normalization; grid x: slices of a channel, grid y: channels

// Where a slice of a channel begins and ends.
__device__ int slice_start(Index length)
{
    return static_cast<int>(length * blockIdx.x / gridDim.x);
}

__device__ int slice_end(Index length)
{
    return static_cast<int>(length * (blockIdx.x + 1) / gridDim.x);
}

// parts[c, slice] <- pixels, mean, sum of squared distances from it
template <typename T>
__global__ void take_statistics(Index length, Index image, Index row, Index height,
                                Index width, const T* values, T* parts)
{
    const T* const y = values + blockIdx.y * length;
    const int start = slice_start(length) + threadIdx.x, end = slice_end(length);
    T sum = 0, count = 0;
    for (int m = start; m < end; m += blockDim.x)
        if (spot_of(m, length, image, row, height, width).pixel) {
            sum += y[m];
            count += 1;
        }
    count = block_sum(count);
    const T mean = block_sum(sum) / (count > 0 ? count : T(1));
    T squares = 0;
    for (int m = start; m < end; m += blockDim.x)
        if (spot_of(m, length, image, row, height, width).pixel)
            squares += (y[m] - mean) * (y[m] - mean);
    squares = block_sum(squares);
    if (threadIdx.x > 0)
        return;
    T* const part = parts + (blockIdx.y * gridDim.x + blockIdx.x) * 3;
    part[0] = count;
    part[1] = mean;
    part[2] = squares;
}

// out <- max(0, gamma (values - mean) / sqrt(variance + eps) + beta + shortcut), zero
// where there is no pixel. If learned, mean and variance are first made of the parts.
// shortcut: 0 none, else every so many-th pixel of `before`, whose channels may be fewer.
template <typename T>
__global__ void normalize(Index length, Index image, Index row, Index height, Index width,
                          Index learned, Index shortcut, Index channels_before,
                          Index length_before, Index image_before, Index row_before,
                          double eps, const T* values, const T* parts, const T* gamma,
                          const T* beta, const T* before, T* mean_, T* variance_, T* out)
{
    const int c = blockIdx.y;
    T mean = mean_[c], variance = variance_[c];
    if (learned) {
        const T* const part = parts + (c * gridDim.x + threadIdx.x) * 3;
        const bool mine = threadIdx.x < gridDim.x;
        const T count = mine ? part[0] : T(0), middle = mine ? part[1] : T(0);
        const T squares = mine ? part[2] : T(0);
        const T all = block_sum(count);
        mean = block_sum(count * middle) / all;
        const T off = middle - mean;
        variance = block_sum(squares + count * off * off) / all;
        __syncthreads();
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            mean_[c] = mean;
            variance_[c] = variance;
        }
    }
    const T factor = gamma[c] / sqrt(variance + T(eps)), shift = beta[c];
    const T* const y = values + c * length;
    const bool has_before = shortcut > 0 && c < channels_before;
    for (int m = slice_start(length) + threadIdx.x; m < slice_end(length);
         m += blockDim.x) {
        const Spot at = spot_of(m, length, image, row, height, width);
        T value = (y[m] - mean) * factor + shift;
        if (has_before && at.pixel)
            value += before[c * length_before + at.image * image_before +
                            at.y * shortcut * row_before + at.x * shortcut];
        value = value < 0 ? T(0) : value;  // what is no number stays none
        out[c * length + m] = at.pixel ? value : T(0);
    }
}

// d = error where out > 0, else 0; parts[c, slice] <- sum d, sum d (values - mean)
template <typename T>
__global__ void take_sums(Index length, const T* values, const T* out, const T* error,
                          const T* mean_, T* parts)
{
    const int c = blockIdx.y;
    const T mean = mean_[c];
    T sum = 0, product = 0;
    for (Index m = c * length + slice_start(length) + threadIdx.x;
         m < c * length + slice_end(length); m += blockDim.x) {
        const T d = out[m] > 0 ? error[m] : T(0);
        sum += d;
        product += d * (values[m] - mean);
    }
    sum = block_sum(sum);
    product = block_sum(product);
    if (threadIdx.x > 0)
        return;
    T* const part = parts + (c * gridDim.x + blockIdx.x) * 2;
    part[0] = sum;
    part[1] = product;
}

// error <- d; values <- their gradient; dgamma, dbeta. n: pixels of a channel
template <typename T>
__global__ void normalize_back(Index length, Index image, Index row, Index height,
                               Index width, Index n, double eps, T* values, const T* out,
                               T* error, const T* mean_, const T* variance_,
                               const T* parts, const T* gamma, T* dgamma, T* dbeta)
{
    const int c = blockIdx.y;
    const T* const part = parts + (c * gridDim.x + threadIdx.x) * 2;
    const bool mine = threadIdx.x < gridDim.x;
    const T sum = block_sum(mine ? part[0] : T(0));
    const T product = block_sum(mine ? part[1] : T(0));
    const T s = 1 / sqrt(variance_[c] + T(eps)), mean = mean_[c];
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        dgamma[c] = product * s;
        dbeta[c] = sum;
    }
    const T factor = gamma[c] * s, slope = s * s * (product / T(n)), level = sum / T(n);
    for (int m = slice_start(length) + threadIdx.x; m < slice_end(length);
         m += blockDim.x) {
        const Index i = c * length + m;
        const Spot at = spot_of(m, length, image, row, height, width);
        const T d = out[i] > 0 ? error[i] : T(0);
        const T back = factor * (d - level - (values[i] - mean) * slope);
        error[i] = d;
        values[i] = at.pixel ? back : T(0);
    }
}

// --- pooling

// out <- max(0, largest or mean of 2 x 2 pixels + b), zero where there is no pixel.
// Grid x: elements of out; grid y: channels
template <typename T>
__global__ void pool(Index average, Index in_length, Index in_image, Index in_row,
                     Index length, Index image, Index row, Index height, Index width,
                     const T* values, const T* b, T* out)
{
    const int c = blockIdx.y, m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= length)
        return;
    const Spot at = spot_of(m, length, image, row, height, width);
    T value = 0;
    if (at.pixel) {
        const T* const v = values + c * in_length + at.image * in_image +
                           2 * at.y * in_row + 2 * at.x;
        const T four[] = {v[0], v[1], v[in_row], v[in_row + 1]};
        value = four[0];
        for (int k = 1; k < 4; ++k)
            value = average ? value + four[k] : four[k] > value ? four[k] : value;
        value = (average ? value * T(0.25) : value) + b[c];
        value = value < 0 ? T(0) : value;
    }
    out[c * length + m] = value;
}

// error <- error where out > 0, else 0; values <- their gradient, pixel by pixel
template <typename T>
__global__ void pool_back(Index average, Index in_length, Index in_image, Index in_row,
                          Index length, Index image, Index row, Index height,
                          Index width, T* values, const T* out, T* error)
{
    const int c = blockIdx.y, m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= length)
        return;
    const Index i = c * length + m;
    const Spot at = spot_of(m, length, image, row, height, width);
    const T d = at.pixel && out[i] > 0 ? error[i] : T(0);
    error[i] = d;
    if (!at.pixel)
        return;
    T* const v = values + c * in_length + at.image * in_image + 2 * at.y * in_row +
                 2 * at.x;
    const Index places[] = {0, 1, in_row, in_row + 1};
    int largest = 0;
    for (int k = 1; k < 4; ++k)
        if (v[places[k]] > v[places[largest]])
            largest = k;
    for (int k = 0; k < 4; ++k)
        v[places[k]] = average ? d * T(0.25) : k == largest ? d : T(0);
}

// out[c] <- sum of x[c, :]; a block has a channel
template <typename T> __global__ void channel_sums(Index length, const T* x, T* out)
{
    T sum = 0;
    for (Index m = threadIdx.x; m < length; m += blockDim.x)
        sum += x[blockIdx.x * length + m];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

// rows[n, c] <- mean over pixels of values[c, n]; one thread has a map of an image.
// Grid x: images; grid y: channels
template <typename T>
__global__ void map_means(Index count, Index channels, Index length, Index image,
                          Index pixels, const T* values, T* rows)
{
    const Index n = blockIdx.x, c = blockIdx.y;
    T sum = 0;
    for (Index m = threadIdx.x; m < image; m += blockDim.x)
        sum += values[c * length + n * image + m];
    sum = block_sum(sum);
    if (threadIdx.x == 0 && n < count)
        rows[n * channels + c] = sum / T(pixels);
}

// --- pictures and penalty

// Copy pictures in flat rows to maps, each moved by (rows, columns) and mirrored as
// `moves`, shape (3, count), says; what comes in over an edge is zero.
// Grid x: elements of maps; grid y: channels
template <typename T>
__global__ void place_pictures(Index count, Index channels, Index length, Index image,
                               Index row, Index height, Index width, const T* rows,
                               const Index* moves, T* values)
{
    const int c = blockIdx.y, m = blockIdx.x * blockDim.x + threadIdx.x;
    if (m >= length)
        return;
    const Spot at = spot_of(m, length, image, row, height, width);
    if (!at.pixel)
        return;
    const int y = at.y - int(moves[at.image]);
    int x = at.x - int(moves[count + at.image]);
    T value = 0;
    if (y >= 0 && y < height && x >= 0 && x < width) {
        if (moves[2 * count + at.image])
            x = int(width) - 1 - x;
        value = rows[((at.image * channels + c) * height + y) * width + x];
    }
    values[c * length + m] = value;
}

// parts[block] <- sum of squares of its share of x
template <typename T> __global__ void square_sums(Index n, const T* x, double* parts)
{
    double sum = 0;
    for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
         i += static_cast<Index>(gridDim.x) * blockDim.x)
        sum += static_cast<double>(x[i]) * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

// loss[0] <- loss[0] + factor * sum of parts; one block
__global__ void add_penalty(Index parts, double factor, const double* sums, double* loss)
{
    double sum = 0;
    for (Index i = threadIdx.x; i < parts; i += blockDim.x)
        sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        loss[0] += factor * sum;
}
