#pragma once
// How a process that allocates the same large tensors every step should treat freed memory.

namespace yumoe {

// Tells the C library to keep freed blocks for reuse instead of returning them to the system, so
// that a step does not pay for fresh pages. Process-wide; call once before training.
// Cost: the process keeps its peak size.
void keep_freed_memory();

}  // namespace yumoe
