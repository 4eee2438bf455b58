// Runs the threads of a block as fibers, one after the other, until each waits at a barrier. With -DSHIM_RACES, where a
// launch asks for it, the accesses that g++ reports (-fsanitize=thread, without its library) are checked against each
// other and must lie in the arrays that the kernel got.
#include "cuda_shim.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(SHIM_RACES)
#include <dlfcn.h>
#endif

namespace shim {
extern "C" {
uint3 shim_thread_index, shim_block_index;
dim3 shim_block_size, shim_grid_size;
unsigned long long shim_block_serial = 0;
void* shim_dynamic_memory = nullptr;
}

namespace {
constexpr int MOST_THREADS = 1024, MOST_WARPS = 32;
constexpr long STACK = (256 << 10) + 17 * 64;  // a power of two would put all stacks into the same few lines of a cache
constexpr long CANARY = 64;
const char* const WARP_BARRIER = "__syncwarp";
constexpr unsigned POISON = 0x7ffdcdcd;  // NaN as float and as double, no index as int
enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
  State state;
  const char* what;
  int line, vote;
#if defined(__x86_64__)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};

struct Warp {  // of the operation that threads come to and of the one before it
  unsigned long long slots[2][32];
  unsigned votes[2];
  int parity;
};

struct Allocation {
  char* memory;
  long bytes;
  const char* name;
};

struct Options {
  int order = 0, skipped_line = -1;
  unsigned seed = 0;
  bool races = false;
} options;

Fiber fibers[MOST_THREADS];
uint3 indices[MOST_THREADS];  // threadIdx
Warp warps[MOST_WARPS];
std::vector<Allocation> allocations;
char* stacks = nullptr;
int current = -1, n_threads = 0, votes = 0;
long static_bytes = 0;
std::string error;
void (*kernel_body)(void*);
void* kernel_arguments;
std::mt19937 generator;

std::string text(const char* format, ...) {
  char buffer[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

std::string place() {
  return text("block (%u, %u, %u)", shim_block_index.x, shim_block_index.y, shim_block_index.z);
}

// ---- switching between the scheduler and a fiber
#if defined(__x86_64__)
extern "C" void shim_switch(void** from, void* to);
asm(".text\n.hidden shim_switch\n.globl shim_switch\n.type shim_switch,@function\nshim_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "popq %rcx\njmp *%rcx\n"  // where a return would go is predicted from the calls, wrongly
    ".size shim_switch,.-shim_switch\n");
void* scheduler;
void to_scheduler() { shim_switch(&fibers[current].stack_pointer, scheduler); }
void to_fiber() { shim_switch(&scheduler, fibers[current].stack_pointer); }
void to_next(int from) { shim_switch(&fibers[from].stack_pointer, fibers[current].stack_pointer); }
#else
ucontext_t scheduler;
void to_scheduler() { swapcontext(&fibers[current].context, &scheduler); }
void to_fiber() { swapcontext(&scheduler, &fibers[current].context); }
void to_next(int from) { swapcontext(&fibers[from].context, &fibers[current].context); }
#endif

// From a thread that waits or has returned: in the order forward straight to the one that the scheduler would take.
void give_way() {
  const int from = current;
  if (options.order || from % 32 == 31 || fibers[from + 1].state != READY) return to_scheduler();
  current = from + 1;
  shim_thread_index = indices[current];
  to_next(from);
}

void entry() {
  kernel_body(kernel_arguments);
  fibers[current].state = DONE;
  give_way();
}

void start(int thread) {
  Fiber& fiber = fibers[thread];
  fiber.state = READY;
  char* stack = stacks + thread * STACK;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack + STACK);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

void wait_at(State state, const char* what, int line, int vote) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  fiber.what = what;
  fiber.line = line;
  fiber.vote = vote;
  give_way();
}

[[noreturn]] void stop(const std::string& message) {  // the block is given up: its fibers are never resumed
  if (error.empty()) error = message;
  to_scheduler();
  std::abort();
}

#if defined(SHIM_RACES)
// ---- the race detector: two threads of a block may touch an address only with a barrier between them
bool watching = false, fenced = false;
unsigned long long block_epoch = 0, warp_epochs[MOST_WARPS];

// Which barriers (by the line of the source) ran, and which alone kept two accesses apart: that one cannot go.
constexpr int MOST_LINES = 1 << 15, FAR = 64;
enum Use { RAN = 1, NEEDED = 2 };
extern "C" __attribute__((visibility("default"))) unsigned char shim_uses[MOST_LINES];
unsigned char shim_uses[MOST_LINES];
std::vector<int> block_lines{0}, warp_lines[MOST_WARPS];

void count_barrier(int line) {
  if (line < MOST_LINES) shim_uses[line] |= RAN;
}

struct Between {  // the line of all barriers between two accesses, 0 as long as there is none, -1 if they differ
  int line = 0;
  void add(const std::vector<int>& lines, unsigned long long first, unsigned long long last) {
    if (last - first > FAR) line = -1;
    for (; first < last && line >= 0; ++first) line = line && line != lines[first] ? -1 : lines[first];
  }
  void note() const {
    if (line > 0 && line < MOST_LINES) shim_uses[line] |= NEEDED;
  }
};

struct Marks {  // accesses of one kind since the last barriers
  unsigned long long block, epoch, warp_epoch;
  unsigned warps, lanes;  // who, of all warps since the block's barrier; lanes of the last warp since its own
  int warp, several_blocks;
  const void* where;
};

struct Cell {
  uintptr_t address;
  Marks marks[3];  // read, written, changed atomically
};
enum Kind { READ, WRITE, ATOMIC };
const char* const KINDS[] = {"reads", "writes", "atomically changes"};
const char* const KINDS_BEFORE[] = {"read", "wrote", "atomically changed"};

std::vector<Cell> cells;
size_t n_cells = 0;

Cell& cell_of(uintptr_t address) {
  if (2 * n_cells >= cells.size()) {
    std::vector<Cell> old(std::max<size_t>(1 << 12, 4 * cells.size()), Cell{});
    old.swap(cells);
    n_cells = 0;
    for (const Cell& cell : old)
      if (cell.address) cell_of(cell.address) = cell;
  }
  const size_t mask = cells.size() - 1;
  size_t slot = (address * 0x9e3779b97f4a7c15ull >> 20) & mask;
  while (cells[slot].address && cells[slot].address != address) slot = (slot + 1) & mask;
  if (!cells[slot].address) {
    cells[slot] = Cell{};
    cells[slot].address = address;
    ++n_cells;
  }
  return cells[slot];
}

const Allocation* allocation_of(uintptr_t address, int bytes) {
  for (const Allocation& shared : allocations) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared.memory);
    if (address >= begin && address + bytes <= begin + shared.bytes) return &shared;
  }
  return nullptr;
}

struct Extent {  // an array that the kernel got or may know of, one that it cannot write to if `constant`
  uintptr_t begin, bytes;
  bool constant;
};
std::vector<Extent> extents;
int own_extents = 0;  // of the kernel's arguments; they come first
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], _end[];  // of this library

enum Place { OUTSIDE, CONSTANT, VARIABLE };
Place place_of(uintptr_t address, int bytes) {
  for (const Extent& extent : extents)
    if (address >= extent.begin && address + bytes <= extent.begin + extent.bytes)
      return extent.constant ? CONSTANT : VARIABLE;
  return address >= (uintptr_t)__ehdr_start && address + bytes <= (uintptr_t)_end ? CONSTANT : OUTSIDE;
}

std::string source(const void* where) {
  Dl_info info;
  if (!where || !dladdr(where, &info)) return "?";
  return text("{%lx}", (long)((char*)where - (char*)info.dli_fbase - 1));
}

std::string name_of(uintptr_t address, const Allocation* shared) {
  if (!shared) return "device memory";
  return text("byte %ld of the shared array %s", (long)(address - (uintptr_t)shared->memory), shared->name);
}

void check(uintptr_t address, Kind kind, const Allocation* shared, const void* where) {
  Cell& cell = cell_of(address);
  const int warp = current >> 5, lane = current & 31;
  if (shared) {
    for (Marks& marks : cell.marks)
      if (marks.block != shim_block_serial) marks = Marks{};  // another block's memory was here
    if (kind == READ && !cell.marks[WRITE].block && !cell.marks[ATOMIC].block)
      stop(place() + text(": thread %d reads ", current) + name_of(address, shared) +
           ", which nobody has written, at " + source(where));
  }
  for (int other = 0; other < 3; ++other) {
    const Marks& marks = cell.marks[other];
    if (!marks.block || (kind == other && kind != WRITE)) continue;
    if (marks.block != shim_block_serial || marks.several_blocks) {
      if (!fenced)
        stop("race between blocks: " + place() + text(": thread %d %s ", current, KINDS[kind]) +
             name_of(address, shared) + text(", which another block %s, at ", KINDS_BEFORE[other]) + source(where) +
             " and " + source(marks.where));
      continue;
    }
    bool other_warp = marks.warps & ~(1u << warp);
    bool other_lane = marks.warp == warp && (marks.lanes & ~(1u << lane));
    if (other_warp && marks.epoch != block_epoch) {
      Between between;
      between.add(block_lines, marks.epoch + 1, block_epoch + 1);
      between.note();
      other_warp = false;
    }
    if (other_lane && (marks.epoch != block_epoch || marks.warp_epoch != warp_epochs[warp])) {
      Between between;
      between.add(block_lines, marks.epoch + 1, block_epoch + 1);
      between.add(warp_lines[warp], marks.warp_epoch, warp_epochs[warp]);
      between.note();
      other_lane = false;
    }
    if (other_warp || other_lane)
      stop("race: " + place() + text(": thread %d (warp %d) %s ", current, warp, KINDS[kind]) +
           name_of(address, shared) + text(", which another thread of %s %s with no barrier between them, at ",
                                           other_warp ? "another warp" : "its warp", KINDS_BEFORE[other]) +
           source(where) + " and " + source(marks.where));
  }
  Marks& mine = cell.marks[kind];
  if (mine.block != shim_block_serial) {
    mine.several_blocks |= mine.block != 0;
    mine.block = shim_block_serial;
    mine.warps = 0;
    mine.warp = -1;
  }
  if (mine.epoch != block_epoch) mine.epoch = block_epoch, mine.warps = 0, mine.warp = -1;
  if (mine.warp != warp || mine.warp_epoch != warp_epochs[warp]) mine.lanes = 0;
  mine.warp = warp;
  mine.warp_epoch = warp_epochs[warp];
  mine.warps |= 1u << warp;
  mine.lanes |= 1u << lane;
  mine.where = where;
}

void access(const void* pointer, int bytes, Kind kind, const void* where) {
  if (current < 0) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  const uintptr_t stack = reinterpret_cast<uintptr_t>(stacks);
  if (address >= stack && address < stack + MOST_THREADS * STACK) return;  // a thread's own variables
  const Allocation* shared = allocation_of(address, bytes);
  if (!shared) {
    const Place place_there = place_of(address, bytes);
    if (place_there == CONSTANT && kind == READ) return;
    if (place_there != VARIABLE) {
      watching = false;
      stop(place() + text(": thread %d %s %d bytes outside of all arrays, at ", current, KINDS[kind], bytes) +
           source(where));
    }
  }
  watching = false;
  if (bytes < 4) {
    check(address, kind, shared, where);
  } else {
    for (int byte = 0; byte < bytes; byte += 4) check(address + byte, kind, shared, where);
  }
  watching = true;
}

void forget_races() {
  cells.assign(1 << 12, Cell{});
  n_cells = 0;
  fenced = false;
  block_epoch = 0;
  block_lines.assign(1, 0);
  for (int warp = 0; warp < MOST_WARPS; ++warp) warp_epochs[warp] = 0, warp_lines[warp].clear();
}
#endif

// ---- the scheduler
std::string waiting(int first, int last) {
  std::string result;
  for (int thread = first; thread < last;) {
    const Fiber& fiber = fibers[thread];
    int end = thread;
    while (end < last && fibers[end].state == fiber.state && (fiber.state == DONE || fibers[end].line == fiber.line)) ++end;
    result += text("; threads %d to %d ", thread, end - 1);
    result += fiber.state == DONE ? "have returned" : text("wait at %s, line %d", fiber.what, fiber.line);
    thread = end;
  }
  return result;
}

template <typename I>
void arrange(I begin, I end) {
  if (options.order == 1) std::reverse(begin, end);
  if (options.order == 2) std::shuffle(begin, end, generator);
}

bool run_warp(int warp) {  // until each of its threads waits or has returned; true if it can go on
  int lanes[32];
  std::iota(lanes, lanes + 32, 32 * warp);
  if (options.order) arrange(lanes, lanes + 32);
  for (int thread : lanes) {
    if (fibers[thread].state != READY) continue;
    current = thread;
    shim_thread_index = indices[thread];
    to_fiber();
    current = -1;
    if (!error.empty()) return false;
  }
  const Fiber& first = fibers[32 * warp];
  for (int thread = 32 * warp; thread < 32 * warp + 32; ++thread) {
    const Fiber& fiber = fibers[thread];
    if (fiber.state != first.state || (fiber.state != DONE && fiber.line != first.line)) {
      error = "divergent barrier in " + place() + waiting(32 * warp, 32 * warp + 32);
      return false;
    }
  }
  if (first.state != AT_WARP) return false;
#if defined(SHIM_RACES)
  // Shuffles and votes order no memory, says CUDA's manual.
  if (options.races && first.what == WARP_BARRIER) {
    count_barrier(first.line);
    if (first.line != options.skipped_line) ++warp_epochs[warp], warp_lines[warp].push_back(first.line);
  }
#endif
  for (int thread = 32 * warp; thread < 32 * warp + 32; ++thread) fibers[thread].state = READY;
  warps[warp].parity ^= 1;
  warps[warp].votes[warps[warp].parity] = 0;
  return true;
}

void run_block(long dynamic_bytes) {
  ++shim_block_serial;
  Site dynamic{};
  shim_dynamic_memory = nullptr;
  if (dynamic_bytes) shim_dynamic_memory = shim_shared(&dynamic, dynamic_bytes, "(dynamic)");
  static_bytes = 0;
  for (Warp& warp : warps) warp.votes[warp.parity] = 0;
  for (int thread = 0; thread < n_threads; ++thread) start(thread);
  const int n_warps = n_threads / 32;
#if defined(SHIM_RACES)
  watching = options.races;
  if (watching) ++block_epoch, block_lines.push_back(0);
#endif
  for (;;) {
    std::vector<int> runnable(n_warps);
    std::iota(runnable.begin(), runnable.end(), 0);
    arrange(runnable.begin(), runnable.end());
    if (options.order == 2) {
      while (!runnable.empty() && error.empty()) {
        const size_t chosen = generator() % runnable.size();
        if (!run_warp(runnable[chosen])) runnable.erase(runnable.begin() + chosen);
      }
    } else {
      for (int warp : runnable)
        while (error.empty() && run_warp(warp)) {
        }
    }
    if (!error.empty()) break;
    votes = 0;
    for (int thread = 0; thread < n_threads; ++thread) {
      const Fiber& fiber = fibers[thread];
      if (fiber.state != fibers[0].state || (fiber.state != DONE && fiber.line != fibers[0].line)) {
        error = "divergent barrier in " + place() + waiting(0, n_threads);
        break;
      }
      votes += fiber.vote;
    }
    if (!error.empty() || fibers[0].state == DONE) break;
#if defined(SHIM_RACES)
    if (options.races) {
      count_barrier(fibers[0].line);
      if (fibers[0].line != options.skipped_line) ++block_epoch, block_lines.push_back(fibers[0].line);
    }
#endif
    for (int thread = 0; thread < n_threads; ++thread) fibers[thread].state = READY;
  }
#if defined(SHIM_RACES)
  watching = false;
#endif
  for (const Allocation& shared : allocations) {
    for (long byte = 0; byte < CANARY; ++byte)
      if (error.empty() && shared.memory[shared.bytes + byte] != (char)0xA5)
        error = place() + text(": written past the end of the shared array %s, %ld bytes in all", shared.name, shared.bytes);
    std::free(shared.memory);
  }
  allocations.clear();
}
}  // namespace

extern "C" {
void* shim_shared(Site* site, long bytes, const char* name) {
  char* memory = static_cast<char*>(std::malloc(bytes + CANARY));
  std::memset(memory + bytes, 0xA5, CANARY);
  for (long byte = 0; byte < bytes; ++byte) memory[byte] = reinterpret_cast<const char*>(&POISON)[byte % 4];
  static_bytes += bytes;
  allocations.push_back({memory, bytes, name});
  site->memory = memory;
  site->block = shim_block_serial;
  return memory;
}

int shim_block_barrier(const char* what, int line, int vote) {
  wait_at(AT_BLOCK, what, line, vote);
  return votes;
}

static int warp_operation(const char* what, int line, unsigned mask) {  // returns where its values are
  if (mask != 0xffffffffu) shim_fail("a warp operation of some lanes only", line);
  wait_at(AT_WARP, what, line, 0);
  return warps[current >> 5].parity ^ 1;
}

unsigned long long shim_shuffle(int kind, int by, int line, unsigned mask, int width, unsigned long long bits) {
  const char* const names[] = {"__shfl_sync", "__shfl_xor_sync", "__shfl_down_sync", "__shfl_up_sync"};
  if (width != 32) shim_fail("a shuffle in parts of a warp", line);
  Warp& warp = warps[current >> 5];
  const int lane = current & 31;
  warp.slots[warp.parity][lane] = bits;
  int from = by;
  if (kind == XOR) from = lane ^ by;
  if (kind == DOWN) from = (unsigned)by > 31u - lane ? lane : lane + by;
  if (kind == UP) from = (unsigned)by > (unsigned)lane ? lane : lane - by;
  return warp.slots[warp_operation(names[kind], line, mask)][from & 31];
}

unsigned shim_ballot(const char* what, int line, unsigned mask, int predicate) {
  Warp& warp = warps[current >> 5];
  warp.votes[warp.parity] |= (unsigned)(predicate != 0) << (current & 31);
  return warp.votes[warp_operation(what, line, mask)];
}

void shim_warp_barrier(int line, unsigned mask) {
  if (mask != 0xffffffffu) shim_fail("a warp barrier of some lanes only", line);
  wait_at(AT_WARP, WARP_BARRIER, line, 0);
}

void shim_atomic(const void* address, int bytes) {
#if defined(SHIM_RACES)
  if (watching) access(address, bytes, ATOMIC, __builtin_return_address(0));
#else
  (void)address, (void)bytes;
#endif
}

void shim_fence() {
#if defined(SHIM_RACES)
  fenced = true;  // the kernel orders its blocks itself
#endif
}

void shim_fail(const char* message, int line) { stop(place() + text(": %s, line %d", message, line)); }

int shim_run(const unsigned* grid, const unsigned* block, long dynamic_bytes, void (*body)(void*), void* arguments,
             long bytes_of_arguments, const bool* constant) {
  if (!stacks) {
    void* memory = mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      error = "no memory for the stacks of the threads";
      return 1;
    }
    stacks = static_cast<char*>(memory);
  }
  error.clear();
  generator.seed(options.seed);
  shim_grid_size = {grid[0], grid[1], grid[2]};
  shim_block_size = {block[0], block[1], block[2]};
  n_threads = (int)(block[0] * block[1] * block[2]);
  for (unsigned thread = 0; thread < (unsigned)n_threads; ++thread)
    indices[thread] = {thread % block[0], thread / block[0] % block[1], thread / (block[0] * block[1])};
  kernel_body = body;
  kernel_arguments = arguments;
#if defined(SHIM_RACES)
  if (options.races) {
    forget_races();
    for (int k = 0; k < own_extents; ++k) extents[k].constant = constant[k];
    for (Extent& extent : extents)  // a kernel may get an array a second time, to write to it
      for (const Extent& other : extents)
        if (!other.constant && other.begin < extent.begin + extent.bytes && extent.begin < other.begin + other.bytes)
          extent.constant = false;
    extents.push_back({reinterpret_cast<uintptr_t>(arguments), (uintptr_t)bytes_of_arguments, true});
  }
#else
  (void)bytes_of_arguments, (void)constant;
#endif
  std::vector<unsigned> order((size_t)grid[0] * grid[1] * grid[2]);
  std::iota(order.begin(), order.end(), 0u);
  arrange(order.begin(), order.end());
  for (unsigned index : order) {
    shim_block_index = {index % grid[0], index / grid[0] % grid[1], index / (grid[0] * grid[1])};
    run_block(dynamic_bytes);
    if (!error.empty()) return 1;
  }
  return 0;
}

#define SHIM_VISIBLE __attribute__((visibility("default")))
SHIM_VISIBLE const char* shim_error() { return error.c_str(); }
SHIM_VISIBLE long shim_static_bytes() { return static_bytes; }
SHIM_VISIBLE void shim_options(int order, unsigned seed, int skipped_line, int races) {
  options.order = order;
  options.seed = seed;
  options.skipped_line = skipped_line;
  options.races = races;
}

#if defined(SHIM_RACES)
SHIM_VISIBLE void shim_extents(int arguments, int count, const uintptr_t* begins, const long* bytes) {
  extents.clear();
  own_extents = arguments;
  for (int k = 0; k < count; ++k) extents.push_back({begins[k], (uintptr_t)bytes[k], false});
}
#define SHIM_SEE(kind, bytes) \
  if (watching) access(p, bytes, kind, __builtin_return_address(0))
#define SHIM_HOOK(bytes)                                                     \
  void __tsan_read##bytes(void* p) { SHIM_SEE(READ, bytes); }                \
  void __tsan_write##bytes(void* p) { SHIM_SEE(WRITE, bytes); }              \
  void __tsan_unaligned_read##bytes(void* p) { SHIM_SEE(READ, bytes); }      \
  void __tsan_unaligned_write##bytes(void* p) { SHIM_SEE(WRITE, bytes); }
SHIM_HOOK(1)
SHIM_HOOK(2)
SHIM_HOOK(4)
SHIM_HOOK(8)
SHIM_HOOK(16)
void __tsan_read_range(void* p, unsigned long bytes) { SHIM_SEE(READ, (int)bytes); }
void __tsan_write_range(void* p, unsigned long bytes) { SHIM_SEE(WRITE, (int)bytes); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#endif
}
}  // namespace shim
