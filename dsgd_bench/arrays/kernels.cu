// What happens to models and layers on a GPU, each in one pass over memory.
//
// Compiled at run time by CuPy (NVRTC, C++17, without contraction to fused multiply-adds,
// so an elementwise kernel rounds as NumPy does); `kernels.py` launches it. Nothing is
// included: the tests compile the same text for the host, where it meets NumPy.
//
// n: elements of a vector. Scalars come as double and are rounded to the vector's type
// first, as NumPy does with Python's numbers.

using Index = long long;

// --- vectors: 16 bytes at a time where all of them allow it

template <typename T> struct alignas(16) Pack {
    static constexpr int width = 16 / sizeof(T);
    T item[width];
};

// How a kernel uses a vector; what it only writes is not read first.
template <typename T> struct In {
    static constexpr bool read = true, written = false;
    const T* at;
};
template <typename T> struct Out {
    static constexpr bool read = false, written = true;
    T* at;
};
template <typename T> struct InOut {
    static constexpr bool read = true, written = true;
    T* at;
};

template <typename P, typename A> __device__ P get(A vector, Index start, Index k)
{
    P value{};
    if constexpr (A::read)
        value = reinterpret_cast<const P*>(vector.at + start)[k];
    return value;
}

template <typename P, typename A>
__device__ void put(A vector, Index start, Index k, const P& value)
{
    if constexpr (A::written)
        reinterpret_cast<P*>(vector.at + start)[k] = value;
}

template <typename T> __device__ int skew(const T* at)
{
    return static_cast<int>(reinterpret_cast<unsigned long long>(at) % 16 / sizeof(T));
}

__device__ Index me()
{
    return static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ Index everybody()
{
    return static_cast<Index>(gridDim.x) * blockDim.x;
}

// Call f(i, element of each vector) for every i < n. Between a head and a tail, elements
// go in packs; vectors that are not equally far from a multiple of 16 bytes are all head.
template <typename T, typename F, typename First, typename... Rest>
__device__ void each(Index n, F f, First first, Rest... rest)
{
    constexpr int width = Pack<T>::width;
    const int off = skew(first.at);
    const bool packed = (true && ... && (skew(rest.at) == off));
    Index head = packed ? (width - off) % width : n;
    if (head > n)
        head = n;
    const Index packs = (n - head) / width, tail = head + packs * width;

    const auto pack = [&](Index k, auto... values) {
#pragma unroll
        for (int j = 0; j < width; ++j)
            f(head + k * width + j, values.item[j]...);
        return [=](auto... vectors) { (put(vectors, head, k, values), ...); };
    };
    for (Index k = me(); k < packs; k += everybody())
        pack(k, get<Pack<T>>(first, head, k), get<Pack<T>>(rest, head, k)...)(
            first, rest...);

    const auto single = [&](Index i, auto... values) {
        f(i, values...);
        return [=](auto... vectors) { (put(vectors, 0, i, values), ...); };
    };
    for (Index k = me(); k < head + n - tail; k += everybody()) {
        const Index i = k < head ? k : tail + k - head;
        single(i, get<T>(first, 0, i), get<T>(rest, 0, i)...)(first, rest...);
    }
}

// y <- y + a x
template <typename T> __global__ void axpy(Index n, double a_, const T* x, T* y)
{
    const T a = a_;
    each<T>(n, [=](Index, T& y, T x) { y += a * x; }, InOut<T>{y}, In<T>{x});
}

// y <- (x + y) / 2
template <typename T> __global__ void average(Index n, const T* x, T* y)
{
    each<T>(n, [](Index, T& y, T x) { y = (x + y) * T(0.5); }, InOut<T>{y}, In<T>{x});
}

// x, y <- (x + y) / 2
template <typename T> __global__ void average_both(Index n, T* x, T* y)
{
    each<T>(
        n, [](Index, T& x, T& y) { x = y = (x + y) * T(0.5); }, InOut<T>{x}, InOut<T>{y});
}

// What the optimizer does to one element; the formulas are those of optimizer.py.
template <typename T> struct Rule {
    T lr, momentum, decay;
    bool nesterov;

    __device__ T decayed(T x, T g) const { return decay != 0 ? x * decay + g : g; }

    __device__ void descend(T& x, T g) const { x -= decayed(x, g) * lr; }

    __device__ void update(T& x, T g, T& u) const
    {
        const T d = decayed(x, g);
        u = u * momentum + d;
        x -= (nesterov ? u * momentum + d : u) * lr;
    }
};

// x <- x - lr (g + decay x)
template <typename T>
__global__ void descend(Index n, double lr, double decay, T* x, const T* g)
{
    const Rule<T> rule{T(lr), T(0), T(decay), false};
    each<T>(n, [=](Index, T& x, T g) { rule.descend(x, g); }, InOut<T>{x}, In<T>{g});
}

// u <- momentum u + d, d = g + decay x; x <- x - lr u, or x - lr (d + momentum u)
template <typename T>
__global__ void update(Index n, double lr, double momentum, double decay, Index nesterov,
                       T* x, const T* g, T* u)
{
    const Rule<T> rule{T(lr), T(momentum), T(decay), nesterov != 0};
    each<T>(
        n, [=](Index, T& x, T g, T& u) { rule.update(x, g, u); }, InOut<T>{x}, In<T>{g},
        InOut<T>{u});
}

// z <- x / w, w one element
template <typename T> __global__ void debias(Index n, const T* x, const T* w_, T* z)
{
    const T w = *w_;
    each<T>(n, [=](Index, T& z, T x) { z = x / w; }, Out<T>{z}, In<T>{x});
}

// y <- y + a x, though others add to y from other GPUs
template <typename T> __global__ void accumulate(Index n, double a_, const T* x, T* y)
{
    const T a = a_;
    for (Index i = me(); i < n; i += everybody())
        atomicAdd_system(y + i, a * x[i]);
}

// g <- g + strength g g (x - before)
template <typename T>
__global__ void compensate(Index n, double strength_, T* g, const T* x, const T* before)
{
    const T strength = strength_;
    each<T>(
        n, [=](Index, T& g, T x, T before) { g += g * g * (x - before) * strength; },
        InOut<T>{g}, In<T>{x}, In<T>{before});
}

// M <- memory M + (1 - memory) g g; g <- g + strength / sqrt(M + epsilon) g g (x - before)
template <typename T>
__global__ void compensate_adaptively(Index n, double strength_, double memory_,
                                      double epsilon_, T* g, const T* x, const T* before,
                                      T* mean_square)
{
    const T strength = strength_, memory = memory_, rest = 1 - memory_;
    const T epsilon = epsilon_;
    each<T>(
        n,
        [=](Index, T& g, T& mean, T x, T before) {
            const T square = g * g;
            mean = mean * memory + square * rest;
            g += square / sqrt(mean + epsilon) * (x - before) * strength;
        },
        InOut<T>{g}, InOut<T>{mean_square}, In<T>{x}, In<T>{before});
}

// y <- x as bfloat16, to the nearest, ties to even; what is no number stays none
__global__ void to_bfloat16(Index n, const float* x, unsigned short* y)
{
    for (Index i = me(); i < n; i += everybody()) {
        const unsigned bits = __float_as_uint(x[i]);
        const bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
        y[i] = number ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40u;
    }
}

// --- layers

// out[k] <- rows[indices[k]]; U: a unit of memory, `width` of which make a row. A warp
// has a row; grid y shares out its units.
template <typename U>
__global__ void gather(Index batch, Index width, Index samples, const U* rows,
                       const Index* indices, U* out)
{
    const Index warps = everybody() / 32, lane = threadIdx.x % 32;
    for (Index k = me() / 32; k < batch; k += warps) {
        const Index index = indices[k];
        const Index row = index < 0 ? 0 : index < samples ? index : samples - 1;
        for (Index j = blockIdx.y * 32 + lane; j < width; j += gridDim.y * 32)
            out[k * width + j] = rows[row * width + j];
    }
}

// h <- h + b in each row; n < 2^32
template <typename T>
__global__ void add_bias(Index n, Index columns, T* h, const T* b)
{
    const unsigned width = columns;
    each<T>(n, [=](Index i, T& h) { h += b[static_cast<unsigned>(i) % width]; }, InOut<T>{h});
}

// h <- max(0, h + b) in each row; n < 2^32
template <typename T>
__global__ void bias_relu(Index n, Index columns, T* h, const T* b)
{
    const unsigned width = columns;
    each<T>(
        n,
        [=](Index i, T& h) {
            const T sum = h + b[static_cast<unsigned>(i) % width];
            h = sum < 0 ? T(0) : sum;  // what is no number stays none
        },
        InOut<T>{h});
}

// The largest block of the kernels below.
constexpr int most_threads = 1024;

// out[part, column] <- sum over the part's rows of f(place). `lanes`, a power of two, is
// how many columns a block has; its threads take turns at the rows. Grid x: columns;
// grid y: parts of equally many rows. Sums are taken in an order that is always the same.
template <typename T, typename F>
__device__ void column_sums(Index rows, Index columns, int lanes, T* out, F f)
{
    __shared__ T sums[most_threads];
    const int lane = threadIdx.x % lanes, turns = blockDim.x / lanes;
    const int turn = threadIdx.x / lanes;
    const Index column = static_cast<Index>(blockIdx.x) * lanes + lane;
    const Index length = (rows + gridDim.y - 1) / gridDim.y;
    const Index first = blockIdx.y * length;
    const Index last = first + length < rows ? first + length : rows;
    T sum = 0;
    if (column < columns)
        for (Index row = first + turn; row < last; row += turns)
            sum += f(row * columns + column);
    sums[threadIdx.x] = sum;
    for (int half = turns / 2; half > 0; half /= 2) {
        __syncthreads();
        if (turn < half)
            sums[threadIdx.x] += sums[threadIdx.x + half * lanes];
    }
    if (turn == 0 && column < columns)
        out[blockIdx.y * columns + column] = sums[lane];
}

// out[part] <- sum over the part's rows of error
template <typename T>
__global__ void bias_backward(Index rows, Index columns, Index lanes, const T* error,
                              T* out)
{
    column_sums(rows, columns, lanes, out, [=](Index i) { return error[i]; });
}

// error <- error (h > 0); out[part] <- sum over the part's rows of error
template <typename T>
__global__ void bias_relu_backward(Index rows, Index columns, Index lanes, T* error,
                                   const T* h, T* out)
{
    column_sums(rows, columns, lanes, out, [=](Index i) {
        return error[i] *= T(h[i] > 0);
    });
}

template <typename T, typename F> __device__ T over_warp(T value, F f)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = f(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// loss[0] <- mean of loss[1], ..., loss[n], by one block
__device__ void mean_of(Index n, double* loss)
{
    __shared__ double sums[most_threads];
    double sum = 0;
    for (Index i = threadIdx.x; i < n; i += blockDim.x)
        sum += loss[1 + i];
    sums[threadIdx.x] = sum;
    for (unsigned half = most_threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half && threadIdx.x + half < blockDim.x)
            sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        loss[0] = sums[0] / n;
}

__global__ void mean_loss(Index n, double* loss) { mean_of(n, loss); }

// scores <- (softmax(scores) - onehot(labels)) / batch, loss[1 + row] <- -log softmax at
// the label; a warp has a row. If there is but one block, loss[0] <- their mean.
template <typename T>
__global__ void cross_entropy(Index batch, Index classes, T* scores, const Index* labels,
                              double* loss)
{
    const auto larger = [](T a, T b) { return a < b ? b : a; };
    const auto plus = [](T a, T b) { return a + b; };
    const int lane = threadIdx.x % 32;
    for (Index row = me() / 32; row < batch; row += everybody() / 32) {
        T* const s = scores + row * classes;
        const Index label = labels[row];
        T top = s[0];
        for (Index j = lane; j < classes; j += 32)
            top = larger(top, s[j]);
        top = over_warp(top, larger);
        const T right = s[label] - top;
        __syncwarp();
        T total = 0;
        for (Index j = lane; j < classes; j += 32)
            total += s[j] = exp(s[j] - top);
        total = over_warp(total, plus);
        for (Index j = lane; j < classes; j += 32)
            s[j] = (s[j] / total - T(j == label)) / T(batch);
        if (lane == 0)
            loss[1 + row] = log(total) - right;
    }
    if (gridDim.x > 1)
        return;
    __syncthreads();
    mean_of(batch, loss);
}
