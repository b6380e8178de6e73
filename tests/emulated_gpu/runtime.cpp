// CUDA's runtime, and what Triton asks of its driver, for cards that are not there; loaded before the real ones.
//
// Memory of a card is memory of the host. A stream is a queue of work, a captured stream writes its work down for later.
// When work is done, EMULATED_GPU_ORDER says: `eager`, at once; `lazy`, when somebody waits for it; `ahead`, at once but for
// that of default streams, which is done when somebody waits; `random`, in between, as EMULATED_GPU_SEED has it. So what
// should wait for another stream and does not reads what is not there yet, or no longer. New memory is full of NaN.
//
// Kernels in the binaries of libraries cannot run: they are refused, and operations.cpp computes what they would.

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" {
int __attribute__((weak)) Py_IsInitialized();
int __attribute__((weak)) PyGILState_Check();
void* __attribute__((weak)) PyEval_SaveThread();
void __attribute__((weak)) PyEval_RestoreThread(void*);
}

namespace {

using Work = std::function<void()>;

std::string setting(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value ? value : otherwise;
}

const int CARDS = std::stoi(setting("EMULATED_GPU_CARDS", "1"));
const size_t MEMORY = std::stoull(setting("EMULATED_GPU_MIB", "4096")) << 20;
const size_t CONTEXT = size_t(300) << 20;  // what CUDA takes of a card for itself
const std::string ORDER = setting("EMULATED_GPU_ORDER", "eager");
const bool POISON = setting("EMULATED_GPU_POISON", "1") == "1";
std::mt19937 random_number(std::stoul(setting("EMULATED_GPU_SEED", "0")));

std::recursive_mutex mutex;

// Holds the mutex; gives Python's lock away while it waits, for work in Python is done under the mutex.
struct Lock {
    Lock() {
        if (mutex.try_lock()) return;
        if (Py_IsInitialized && Py_IsInitialized() && PyGILState_Check()) {
            void* thread = PyEval_SaveThread();
            mutex.lock();
            PyEval_RestoreThread(thread);
        } else {
            mutex.lock();
        }
    }
    ~Lock() { mutex.unlock(); }
};

struct Graph {
    std::vector<Work> work;
    bool broken = false;
    int mode = 0;
    std::thread::id thread;
    unsigned long long number = 0;
};

struct Stream;

// Work, or a wait for another stream to have done so many pieces.
struct Piece {
    Work work;
    Stream* awaited = nullptr;
    uint64_t count = 0;
};

struct Stream {
    int card = 0;
    int priority = 0;
    std::deque<Piece> waiting;
    uint64_t issued = 0, done = 0;
    Graph* capture = nullptr;
    bool is_origin = false;
};

struct Event {
    Stream* stream = nullptr;
    uint64_t count = 0;
    Graph* capture = nullptr;
    double time = 0;
    int asked = 0;
};

struct Block {
    size_t size;
    int card;
    bool on_host;
};

std::set<Stream*> streams;
std::vector<Stream*> default_streams;
std::set<Graph*> captures;
std::map<char*, Block> blocks;
std::vector<size_t> used;
cudaError_t lost = cudaSuccess;  // after an error of a kernel a process can do no more
thread_local cudaError_t latest = cudaSuccess;
thread_local int current = 0;
thread_local int mode = cudaStreamCaptureModeGlobal;

void begin() {
    static std::once_flag once;
    std::call_once(once, [] {
        for (int card = 0; card < CARDS; card++) {
            default_streams.push_back(new Stream{card});
            streams.insert(default_streams.back());
            used.push_back(CONTEXT);
        }
    });
}

Stream* of(cudaStream_t handle) {
    begin();
    return reinterpret_cast<uintptr_t>(handle) <= 2 ? default_streams[current] : reinterpret_cast<Stream*>(handle);
}

cudaError_t told(cudaError_t error) {
    if (error != cudaSuccess) latest = error;
    return error;
}

void say(const std::string& what) { fprintf(stderr, "[emulated GPU] %s\n", what.c_str()); }

Block* block_of(const void* pointer) {
    auto after = blocks.upper_bound(static_cast<char*>(const_cast<void*>(pointer)));
    if (after == blocks.begin()) return nullptr;
    auto& [first, block] = *std::prev(after);
    return static_cast<const char*>(pointer) < first + block.size ? &block : nullptr;
}

void do_one(Stream* stream);

void do_until(Stream* stream, uint64_t count) {
    while (stream->done < count && !stream->waiting.empty()) do_one(stream);
}

void do_one(Stream* stream) {
    Piece piece = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    if (piece.awaited) {
        do_until(piece.awaited, piece.count);
    } else if (lost == cudaSuccess) {
        try {
            piece.work();
        } catch (const std::exception& error) {
            lost = cudaErrorAssert;
            say(std::string("a kernel failed: ") + error.what());
        }
    }
    stream->done++;
}

void do_all(Stream* stream) { do_until(stream, stream->issued); }

void do_all_of(int card) {
    for (Stream* stream : std::vector<Stream*>(streams.begin(), streams.end()))
        if (stream->card == card || card < 0) do_all(stream);
}

void do_some() {
    if (random_number() % 4) return;
    std::vector<Stream*> busy;
    for (Stream* stream : streams)
        if (!stream->waiting.empty()) busy.push_back(stream);
    if (busy.empty()) return;
    Stream* chosen = busy[random_number() % busy.size()];
    for (unsigned left = random_number() % 12; left > 0 && !chosen->waiting.empty(); left--) do_one(chosen);
}

void issue(Stream* stream, Piece piece) {
    stream->waiting.push_back(std::move(piece));
    stream->issued++;
    const bool at_once = ORDER == "eager" || (ORDER == "ahead" && stream != default_streams[stream->card]);
    if (at_once) do_all(stream);
    if (ORDER == "random") do_some();
}

const int PATIENCE = 20;  // who asks an event more often than so waits for it

cudaError_t broken(Graph* graph, const std::string& why, cudaError_t error) {
    graph->broken = true;
    say(why);
    return told(error);
}

// What a thread may not call while any stream is captured, unless it has said that it may.
cudaError_t unless_captured(const char* call) {
    if (lost != cudaSuccess) return told(lost);
    if (mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
    for (Graph* graph : captures) {
        bool mine = graph->thread == std::this_thread::get_id();
        bool all = graph->mode == cudaStreamCaptureModeGlobal && mode == cudaStreamCaptureModeGlobal;
        if (all || (mine && graph->mode != cudaStreamCaptureModeRelaxed))
            return broken(graph, std::string(call) + " while a stream is captured", cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

cudaError_t add(cudaStream_t handle, Work work) {
    Lock lock;
    if (lost != cudaSuccess) return told(lost);
    Stream* stream = of(handle);
    if (!stream->capture) {
        issue(stream, Piece{std::move(work)});
        return cudaSuccess;
    }
    if (stream->capture->broken) return told(cudaErrorStreamCaptureInvalidated);
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
}

}  // namespace

// For operations.cpp.
extern "C" int emulated_gpu_add(cudaStream_t stream, Work* work) { return add(stream, std::move(*work)); }

extern "C" {
#define API cudaError_t CUDARTAPI

// Cards

API cudaGetDeviceCount(int* count) {
    *count = CARDS;
    return cudaSuccess;
}
API cudaGetDevice(int* card) {
    *card = current;
    return cudaSuccess;
}
API cudaSetDevice(int card) {
    if (card < 0 || card >= CARDS) return told(cudaErrorInvalidDevice);
    current = card;
    return cudaSuccess;
}
API cudaGetDeviceProperties(cudaDeviceProp* card, int number) {
    *card = {};
    snprintf(card->name, sizeof card->name, "emulated H100");
    memset(&card->uuid, number + 1, sizeof card->uuid);
    card->totalGlobalMem = MEMORY;
    card->major = 9;
    card->warpSize = 32;
    card->multiProcessorCount = 132;
    card->maxThreadsPerBlock = 1024;
    card->maxThreadsPerMultiProcessor = 2048;
    card->regsPerBlock = card->regsPerMultiprocessor = 65536;
    card->sharedMemPerBlock = 49152;
    card->sharedMemPerBlockOptin = 232448;
    card->sharedMemPerMultiprocessor = 233472;
    card->l2CacheSize = 50 << 20;
    card->textureAlignment = 512;
    card->memoryBusWidth = 5120;
    card->pciBusID = number + 1;
    card->unifiedAddressing = card->concurrentKernels = 1;
    card->maxGridSize[0] = 2147483647;
    card->maxGridSize[1] = card->maxGridSize[2] = 65535;
    card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024;
    card->maxThreadsDim[2] = 64;
    return cudaSuccess;
}
API cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    static const std::map<int, int> known = {
        {cudaDevAttrComputeCapabilityMajor, 9},          {cudaDevAttrMultiProcessorCount, 132},
        {cudaDevAttrWarpSize, 32},                       {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxRegistersPerBlock, 65536},        {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448}, {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
        {cudaDevAttrClockRate, 1980000},                 {cudaDevAttrMemoryClockRate, 2619000},
        {cudaDevAttrGlobalMemoryBusWidth, 5120},         {cudaDevAttrMaxGridDimX, 2147483647},
    };
    auto found = known.find(which);
    *value = found == known.end() ? 0 : found->second;
    return cudaSuccess;
}
API cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 1;
    return cudaSuccess;
}
API cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
API cudaDeviceGetPCIBusId(char* id, int length, int card) {
    snprintf(id, length, "0000:%02x:00.0", card + 1);
    return cudaSuccess;
}
API cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
API cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
API cudaProfilerStart() { return cudaSuccess; }
API cudaProfilerStop() { return cudaSuccess; }
API cudaDeviceSynchronize() {
    Lock lock;
    begin();
    if (cudaError_t error = unless_captured("cudaDeviceSynchronize")) return error;
    for (Graph* graph : captures)
        return broken(graph, "cudaDeviceSynchronize while a stream is captured", cudaErrorStreamCaptureUnsupported);
    do_all_of(current);
    return told(lost);
}

// Errors

API cudaGetLastError() {
    cudaError_t error = lost ? lost : latest;
    latest = cudaSuccess;
    return error;
}
API cudaPeekAtLastError() { return lost ? lost : latest; }
const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
    switch (int(error)) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidDeviceFunction: return "invalid device function";
        case cudaErrorAssert: return "device-side assert triggered";
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
        case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
        case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
        default: return "an error";
    }
}
const char* CUDARTAPI cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }

// Memory

API cudaMalloc(void** pointer, size_t size) {
    Lock lock;
    begin();
    if (cudaError_t error = unless_captured("cudaMalloc")) return error;
    const size_t whole = (size + (2 << 20) - 1) & ~size_t((2 << 20) - 1);
    if (used[current] + whole > MEMORY) return told(cudaErrorMemoryAllocation);
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* made = mmap(nullptr, whole, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (made == MAP_FAILED) return told(cudaErrorMemoryAllocation);
    if (POISON) memset(made, 0xFF, whole);
    used[current] += whole;
    blocks[static_cast<char*>(made)] = Block{whole, current, false};
    *pointer = made;
    return cudaSuccess;
}
API cudaFree(void* pointer) {
    Lock lock;
    if (!pointer) return cudaSuccess;
    if (cudaError_t error = unless_captured("cudaFree")) return error;
    auto found = blocks.find(static_cast<char*>(pointer));
    if (found == blocks.end()) return told(cudaErrorInvalidValue);
    const Block block = found->second;
    do_all_of(block.on_host ? -1 : block.card);  // CUDA waits, too
    if (!block.on_host) used[block.card] -= block.size;
    munmap(pointer, block.size);
    blocks.erase(found);
    return cudaSuccess;
}
API cudaMemGetInfo(size_t* free, size_t* total) {
    Lock lock;
    begin();
    *total = MEMORY;
    *free = MEMORY - used[current];
    return told(lost);
}
API cudaHostAlloc(void** pointer, size_t size, unsigned) {
    Lock lock;
    if (cudaError_t error = unless_captured("cudaHostAlloc")) return error;
    void* made = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) return told(cudaErrorMemoryAllocation);
    if (POISON) memset(made, 0xFF, size);
    blocks[static_cast<char*>(made)] = Block{size, current, true};
    *pointer = made;
    return cudaSuccess;
}
API cudaFreeHost(void* pointer) { return cudaFree(pointer); }
API cudaHostRegister(void* pointer, size_t size, unsigned) {
    Lock lock;
    blocks[static_cast<char*>(pointer)] = Block{size, current, true};
    return cudaSuccess;
}
API cudaHostUnregister(void* pointer) {
    Lock lock;
    do_all_of(-1);
    blocks.erase(static_cast<char*>(pointer));
    return cudaSuccess;
}
API cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    Lock lock;
    *attributes = {};
    Block* block = block_of(pointer);
    attributes->type = !block ? cudaMemoryTypeUnregistered : block->on_host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->device = block ? block->card : -2;
    attributes->devicePointer = block ? const_cast<void*>(pointer) : nullptr;
    attributes->hostPointer = block && block->on_host ? const_cast<void*>(pointer) : nullptr;
    return cudaSuccess;
}
API cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t handle) {
    Lock lock;
    Block *target = block_of(to), *source = block_of(from);
    if (target && source) return add(handle, [=] { memmove(to, from, size); });
    // Of ordinary memory of the host CUDA makes a copy at once, and into it it copies before it returns.
    Stream* stream = of(handle);
    if (stream->capture)
        return broken(stream->capture, "a copy of ordinary memory is captured", cudaErrorStreamCaptureUnsupported);
    if (target) {
        std::vector<char> kept(static_cast<const char*>(from), static_cast<const char*>(from) + size);
        return add(handle, [to, kept = std::move(kept)] { memcpy(to, kept.data(), kept.size()); });
    }
    cudaError_t error = add(handle, [=] { memmove(to, from, size); });
    do_all(stream);
    return error ? error : told(lost);
}
API cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    cudaError_t error = cudaMemcpyAsync(to, from, size, kind, nullptr);
    return error ? error : cudaStreamSynchronize(nullptr);
}
API cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream);
}
API cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    return add(stream, [=] { memset(to, value, size); });
}
API cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, nullptr); }

// Streams and events

API cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
API cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned, int priority) {
    Lock lock;
    begin();
    auto* made = new Stream{current, priority};
    streams.insert(made);
    *handle = reinterpret_cast<cudaStream_t>(made);
    return cudaSuccess;
}
API cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
API cudaStreamDestroy(cudaStream_t stream) {
    Lock lock;
    do_all(of(stream));
    return cudaSuccess;
}
API cudaStreamGetPriority(cudaStream_t stream, int* priority) {
    *priority = of(stream)->priority;
    return cudaSuccess;
}
static cudaError_t unless_in_capture(Stream* stream) {
    if (lost != cudaSuccess || !stream->capture) return told(lost);
    return broken(stream->capture, "a captured stream is waited for", cudaErrorStreamCaptureUnsupported);
}
API cudaStreamSynchronize(cudaStream_t handle) {
    Lock lock;
    Stream* stream = of(handle);
    if (cudaError_t error = unless_in_capture(stream)) return error;
    do_all(stream);
    return told(lost);
}
API cudaStreamQuery(cudaStream_t handle) {
    Lock lock;
    Stream* stream = of(handle);
    if (cudaError_t error = unless_in_capture(stream)) return error;
    return stream->waiting.empty() ? cudaSuccess : cudaErrorNotReady;
}
API cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
    Lock lock;
    Stream* stream = of(handle);
    auto* event = reinterpret_cast<Event*>(event_handle);
    if (event->capture && captures.count(event->capture)) {
        stream->capture = event->capture;  // joins it
        return cudaSuccess;
    }
    if (stream->capture && event->stream)
        return broken(stream->capture, "a captured stream waits for others", cudaErrorStreamCaptureIsolation);
    if (event->stream && event->stream != stream) issue(stream, Piece{nullptr, event->stream, event->count});
    return cudaSuccess;
}
API cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
    *handle = reinterpret_cast<cudaEvent_t>(new Event);
    return cudaSuccess;
}
API cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
API cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }  // work under way may still write into it
API cudaEventRecord(cudaEvent_t event_handle, cudaStream_t handle) {
    Lock lock;
    if (lost != cudaSuccess) return told(lost);
    Stream* stream = of(handle);
    auto* event = reinterpret_cast<Event*>(event_handle);
    event->capture = stream->capture;
    event->stream = stream->capture ? nullptr : stream;
    if (stream->capture) return cudaSuccess;
    event->count = stream->issued + 1;
    event->asked = 0;
    issue(stream, Piece{[event] {
              event->time = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
          }});
    return cudaSuccess;
}
API cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return cudaEventRecord(event, stream); }
API cudaEventQuery(cudaEvent_t handle) {
    Lock lock;
    if (cudaError_t error = unless_captured("cudaEventQuery")) return error;
    auto* event = reinterpret_cast<Event*>(handle);
    if (!event->stream || event->stream->done >= event->count) return cudaSuccess;
    if (++event->asked > PATIENCE) do_until(event->stream, event->count);
    return event->stream->done >= event->count ? told(lost) : cudaErrorNotReady;
}
API cudaEventSynchronize(cudaEvent_t handle) {
    Lock lock;
    if (cudaError_t error = unless_captured("cudaEventSynchronize")) return error;
    auto* event = reinterpret_cast<Event*>(handle);
    if (event->stream) do_until(event->stream, event->count);
    return told(lost);
}
API cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
    Lock lock;
    auto *first = reinterpret_cast<Event*>(from), *last = reinterpret_cast<Event*>(to);
    for (Event* event : {first, last}) {
        if (!event->stream) return told(cudaErrorInvalidResourceHandle);
        if (event->stream->done < event->count) return cudaErrorNotReady;
    }
    *milliseconds = float((last->time - first->time) * 1e3);
    return told(lost);
}
API cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    return add(stream, [=] { function(data); });
}
API cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void* data, unsigned) {
    return add(stream, [=] { function(stream, cudaSuccess, data); });
}

// Captures and graphs

API cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* given) {
    std::swap(mode, reinterpret_cast<int&>(*given));
    return cudaSuccess;
}
API cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode kind) {
    Lock lock;
    if (lost != cudaSuccess) return told(lost);
    Stream* stream = of(handle);
    if (stream == default_streams[stream->card]) return told(cudaErrorStreamCaptureUnsupported);
    if (stream->capture) return told(cudaErrorIllegalState);
    static unsigned long long number = 0;
    stream->capture = new Graph{{}, false, kind, std::this_thread::get_id(), ++number};
    stream->is_origin = true;
    captures.insert(stream->capture);
    return cudaSuccess;
}
API cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    Lock lock;
    Stream* stream = of(handle);
    Graph* made = stream->capture;
    if (!made || !stream->is_origin) return told(cudaErrorIllegalState);
    for (Stream* one : streams)
        if (one->capture == made) one->capture = nullptr, one->is_origin = false;
    captures.erase(made);
    *graph = made->broken ? nullptr : reinterpret_cast<cudaGraph_t>(made);
    return told(made->broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
}
API cudaStreamGetCaptureInfo(
    cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* number, cudaGraph_t* graph,
    const cudaGraphNode_t** after, const cudaGraphEdgeData** edges, size_t* count) {
    Lock lock;
    Graph* capture = of(handle)->capture;
    *status = !capture          ? cudaStreamCaptureStatusNone
              : capture->broken ? cudaStreamCaptureStatusInvalidated
                                : cudaStreamCaptureStatusActive;
    if (number) *number = capture ? capture->number : 0;
    if (graph) *graph = reinterpret_cast<cudaGraph_t>(capture);
    if (after) *after = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
    return told(lost);
}
API cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    return cudaStreamGetCaptureInfo(stream, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}
API cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
    *count = reinterpret_cast<Graph*>(graph)->work.size();
    return cudaSuccess;
}
API cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    if (lost != cudaSuccess) return told(lost);
    *made = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
    return cudaSuccess;
}
API cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    for (const Work& work : reinterpret_cast<Graph*>(graph)->work)
        if (cudaError_t error = add(stream, work)) return error;
    return cudaSuccess;
}
API cudaGraphDestroy(cudaGraph_t graph) {
    Lock lock;
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
API cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(reinterpret_cast<cudaGraph_t>(graph)); }

// Kernels of libraries

void** CUDARTAPI __cudaRegisterFatBinary(void*) {
    static void* binary;
    return &binary;
}
void CUDARTAPI __cudaRegisterFatBinaryEnd(void**) {}
void CUDARTAPI __cudaUnregisterFatBinary(void**) {}
void CUDARTAPI __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
char CUDARTAPI __cudaInitModule(void**) { return 1; }
static std::map<const void*, std::string>& kernel_names() {
    static std::map<const void*, std::string> names;
    return names;
}
void CUDARTAPI __cudaRegisterFunction(
    void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
    kernel_names()[function] = name;
}
API __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}
static thread_local std::tuple<dim3, dim3, size_t, void*> configuration;
unsigned CUDARTAPI __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
    configuration = {grid, block, shared, stream};
    return 0;
}
API __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    std::tie(*grid, *block, *shared, *static_cast<void**>(stream)) = configuration;
    return cudaSuccess;
}
API cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void* function, void**) {
    say("a library's kernel cannot run: " + kernel_names()[function]);
    return told(cudaErrorInvalidDeviceFunction);
}
API __cudaLaunchKernel(cudaKernel_t kernel, dim3, dim3, void**, size_t, cudaStream_t) {
    return cudaLaunchKernelExC(nullptr, kernel, nullptr);
}
API cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}
API cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
API cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks_of_one, const void*, int, size_t, unsigned) {
    *blocks_of_one = 2;
    return cudaSuccess;
}
API cudaGetDriverEntryPointByVersion(
    const char* name, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* found) {
    *function = dlsym(RTLD_DEFAULT, name);
    if (found) *found = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

// The driver, for Triton

int cuInit(unsigned) { return 0; }
int cuGetErrorString(int error, const char** text) {
    *text = cudaGetErrorString(cudaError_t(error));
    return 0;
}
int cuCtxGetCurrent(void** context) {
    *context = reinterpret_cast<void*>(uintptr_t(current + 1));
    return 0;
}
int cuCtxSetCurrent(void*) { return 0; }
int cuCtxGetDevice(int* card) { return cudaGetDevice(card); }
int cuCtxGetLimit(size_t* value, int) {
    *value = 1 << 20;
    return 0;
}
int cuCtxSetLimit(int, size_t) { return 0; }
int cuDevicePrimaryCtxRetain(void** context, int card) {
    *context = reinterpret_cast<void*>(uintptr_t(card + 1));
    return 0;
}
int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
    *flags = 0;
    *active = 1;
    return 0;
}
int cuDeviceGet(int* card, int number) {
    *card = number;
    return 0;
}
int cuDeviceGetCount(int* count) { return cudaGetDeviceCount(count); }
int cuDeviceGetAttribute(int* value, int which, int card) {
    return cudaDeviceGetAttribute(value, cudaDeviceAttr(which), card);
}
int cuModuleLoadData(void** module, const void*) {
    *module = reinterpret_cast<void*>(1);
    return 0;
}
int cuModuleGetFunction(void** function, void*, const char*) {
    *function = reinterpret_cast<void*>(1);
    return 0;
}
int cuFuncGetAttribute(int* value, int which, void*) {
    *value = which == 0 ? 1024 : 0;  // threads of a block at most
    return 0;
}
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuFuncSetCacheConfig(void*, int) { return 0; }
int cuPointerGetAttribute(void* value, int, unsigned long long pointer) {
    Lock lock;
    if (!block_of(reinterpret_cast<void*>(pointer))) return cudaErrorInvalidValue;
    *static_cast<unsigned long long*>(value) = pointer;
    return 0;
}
struct Launch {
    unsigned grid[3], block[3], shared;
    cudaStream_t stream;
};
// Not computed here: see emulated_gpu.py.
int cuLaunchKernelEx(const Launch* launch, void*, void**, void**) {
    Lock lock;
    if (lost != cudaSuccess) return told(lost);
    Stream* stream = of(launch->stream);
    if (stream->card != current) {
        say("a kernel is launched on a stream of another card");
        return cudaErrorInvalidResourceHandle;
    }
    return stream->capture && stream->capture->broken ? told(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}
}
