#pragma once
#include <chrono>

/// A NCCL on the host, beside fake_cuda.hpp's CUDA and linked instead of the real one: ranks are
/// threads of one process, each on a GPU of its own. Every send and receive is done for real, in
/// its stream's turn, when both sides have come to it. What NCCL would answer with a hang, a crash
/// or nonsense is told as misuse (fake_cuda::failures):
///
/// - a send that meets a receive of another size or type; memory that does not live then;
/// - calls on a communicator while another is under way, after its end, or that ranks or devices do
///   not fit; a communicator that is destroyed before it was finalized;
/// - an unbalanced group.
///
/// Nothing is done at once: of communicators that do not block, a group's work is in its stream,
/// and a communicator ready, only when ncclCommGetAsyncError was asked a few times. A communicator
/// that is aborted ends the work of its own rank alone; the others wait, as they do on one machine.
/// Where the environment's EYAS_FAKE_NCCL names a directory, ranks are processes instead, and bytes
/// go between them by files in it (nccl_mailbox.hpp); the functions below are for threads.
/// fake_cuda::fail(call, nth, status) makes calls fail, fake_cuda::alive tells what was left.
namespace eyas::fake_nccl {

/// Whether connections break: all communicators learn of it then, when they are asked.
void broken(bool yes);

/// Whether ncclCommAbort waits until all ranks of the group have aborted or finalized, which NCCL
/// does not rule out. For ever, which is misuse, is half a minute here.
void aborts_together(bool yes);

/// Receives are not done earlier than so long after their sends were there.
void takes(std::chrono::milliseconds time);

}  // namespace eyas::fake_nccl
