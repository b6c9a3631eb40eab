// The words of CUDA C++ that kernels.cu uses, for a compiler of the host.
//
// Blocks run one after the other; the threads of a block are fibers, so a barrier that
// not all of them reach is an error here, where a GPU would hang or go on. Threads run in
// ascending or descending order between two barriers: what depends on it shows.

#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#define __global__ static
#define __device__ inline
#define __shared__ static

struct Dimensions {
    unsigned x = 1, y = 1, z = 1;
};
static Dimensions gridDim, blockDim, blockIdx, threadIdx;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

using std::exp;
using std::log;
using std::sqrt;

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

template <typename T> T atomicAdd_system(T* at, T value)
{
    const T before = *at;
    *at += value;
    return before;
}

// --- fibers

enum class State { ready, at_warp, at_block, done };

struct Fiber {
    ucontext_t context;
    State state;
    unsigned number;
    std::vector<char> stack = std::vector<char>(1 << 16);
    double kept;  // for the others of its warp
};

static std::vector<Fiber> fibers(1024);
static Fiber* running;
static ucontext_t scheduler;
static std::function<void()> body;

inline void wait(State state)
{
    running->state = state;
    swapcontext(&running->context, &scheduler);
}

inline void __syncthreads() { wait(State::at_block); }
inline void __syncwarp() { wait(State::at_warp); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int distance)
{
    running->kept = value;
    __syncwarp();
    const T other = static_cast<T>(fibers[running->number ^ distance].kept);
    __syncwarp();
    return other;
}

static void run_fiber()
{
    body();
    running->state = State::done;
}

static void resume(Fiber& fiber)
{
    running = &fiber;
    threadIdx.x = fiber.number;
    swapcontext(&scheduler, &fiber.context);
}

// Let those of [first, last) go on if all that still run wait there.
static void release(unsigned first, unsigned last, State there)
{
    for (unsigned k = first; k < last; ++k)
        if (fibers[k].state != there && fibers[k].state != State::done)
            return;
    for (unsigned k = first; k < last; ++k)
        if (fibers[k].state == there)
            fibers[k].state = State::ready;
}

static void run_block(bool ascending)
{
    const unsigned threads = blockDim.x;
    for (unsigned k = 0; k < threads; ++k) {
        Fiber& fiber = fibers[k];
        fiber.state = State::ready;
        fiber.number = k;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_fiber, 0);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned k = 0; k < threads; ++k) {
            Fiber& fiber = fibers[ascending ? k : threads - 1 - k];
            if (fiber.state == State::ready) {
                resume(fiber);
                moved = true;
            }
        }
        for (unsigned k = 0; k < threads; k += 32)
            release(k, k + 32 < threads ? k + 32 : threads, State::at_warp);
        release(0, threads, State::at_block);
    }
    for (unsigned k = 0; k < threads; ++k)
        if (fibers[k].state != State::done)
            throw std::runtime_error("not all threads reach the same barrier");
}

template <typename... P, std::size_t... K>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<K...>)
{
    kernel(*static_cast<std::decay_t<P>*>(arguments[K])...);
}

// Run a kernel; return what went wrong, or nothing.
template <typename... P>
const char* launch(void (*kernel)(P...), const unsigned* grid, unsigned threads,
                   bool ascending, void** arguments)
{
    gridDim = {grid[0], grid[1], 1};
    blockDim = {threads, 1, 1};
    body = [=] { call(kernel, arguments, std::index_sequence_for<P...>{}); };
    try {
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
                run_block(ascending);
    } catch (const std::exception& error) {
        static std::string said;
        said = error.what();
        return said.c_str();
    }
    return nullptr;
}
