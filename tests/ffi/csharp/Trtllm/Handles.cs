using System;
using System.Runtime.InteropServices;

namespace Trtllm
{
    /// <summary>
    /// Owns a handle of the library. The runtime destroys none that a call is using, and each of them exactly once, by
    /// Dispose or by the garbage collector.
    /// </summary>
    internal abstract class Handle : SafeHandle
    {
        protected Handle() : base(IntPtr.Zero, true) { }

        public override bool IsInvalid => handle == IntPtr.Zero;
    }

    internal sealed class EngineHandle : Handle
    {
        protected override bool ReleaseHandle() => Native.trtllm_engine_destroy(handle) == Status.Ok;
    }

    internal sealed class ExecutorHandle : Handle
    {
        protected override bool ReleaseHandle() => Native.trtllm_executor_destroy(handle) == Status.Ok;
    }

    internal sealed class RequestHandle : Handle
    {
        protected override bool ReleaseHandle() => Native.trtllm_request_destroy(handle) == Status.Ok;
    }

    internal sealed class TokenizerHandle : Handle
    {
        protected override bool ReleaseHandle() => Native.trtllm_tokenizer_destroy(handle) == Status.Ok;
    }
}
