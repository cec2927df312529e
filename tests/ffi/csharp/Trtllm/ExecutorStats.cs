using System;

namespace Trtllm
{
    /// <summary>Counts of an executor since its creation, and its state as of its last step.</summary>
    public sealed class ExecutorStats
    {
        public ulong Iterations { get; }
        public ulong Completed { get; }
        public ulong Cancelled { get; }
        public ulong Expired { get; }
        public ulong Failed { get; }
        public ulong Preemptions { get; }
        public ulong GeneratedTokens { get; }

        /// <summary>Requests whose last response was not yet taken or delivered.</summary>
        public ulong Requests { get; }

        public ulong Running { get; }
        public ulong Waiting { get; }
        public ulong KVBlocksUsed { get; }
        public ulong KVBlocksFree { get; }
        public ulong MemoryBytes { get; }

        internal ExecutorStats(Native.trtllm_executor_stats native)
        {
            Iterations = native.iterations;
            Completed = native.completed;
            Cancelled = native.cancelled;
            Expired = native.expired;
            Failed = native.failed;
            Preemptions = native.preemptions;
            GeneratedTokens = native.generated_tokens;
            Requests = native.requests;
            Running = native.running;
            Waiting = native.waiting;
            KVBlocksUsed = native.kv_blocks_used;
            KVBlocksFree = native.kv_blocks_free;
            MemoryBytes = native.memory_bytes;
        }
    }
}
