using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace Trtllm
{
    /// <summary>Limits and resources of an executor; begins from the defaults.</summary>
    public sealed class ExecutorConfig
    {
        /// <summary>Hard limit in bytes on weights, workspace and cache together; 0: none.</summary>
        public ulong MemoryBudget { get; set; }

        public ulong KVTokens { get; set; }

        /// <summary>Instruction set; null: the best of this machine.</summary>
        public string Isa { get; set; }

        public uint MaxBatchSize { get; set; }
        public uint MaxBatchTokens { get; set; }
        public uint MaxSequenceTokens { get; set; }
        public uint MaxQueue { get; set; }
        public uint MaxPendingResponses { get; set; }
        public uint Threads { get; set; }
        public bool PrefixReuse { get; set; }
        public uint Device { get; set; }
        public bool RefuseStoredKernels { get; set; }

        public ExecutorConfig()
        {
            Native.trtllm_executor_config defaults = Defaults();
            MaxBatchSize = defaults.max_batch_size;
            MaxBatchTokens = defaults.max_batch_tokens;
            MaxQueue = defaults.max_queue;
            MaxPendingResponses = defaults.max_pending_responses;
            PrefixReuse = defaults.prefix_reuse != 0;
        }

        internal Native.trtllm_executor_config ToNative(IntPtr isa)
        {
            Native.trtllm_executor_config native = Defaults();
            native.memory_budget = MemoryBudget;
            native.kv_tokens = KVTokens;
            native.isa = isa;
            native.max_batch_size = MaxBatchSize;
            native.max_batch_tokens = MaxBatchTokens;
            native.max_sequence_tokens = MaxSequenceTokens;
            native.max_queue = MaxQueue;
            native.max_pending_responses = MaxPendingResponses;
            native.threads = Threads;
            native.prefix_reuse = PrefixReuse ? 1 : 0;
            native.device = Device;
            native.refuse_stored_kernels = RefuseStoredKernels ? 1 : 0;
            return native;
        }

        private static Native.trtllm_executor_config Defaults()
        {
            TrtllmException.Check(Native.trtllm_executor_config_init(
                Native.SizeOf<Native.trtllm_executor_config>(), out Native.trtllm_executor_config config));
            return config;
        }
    }

    /// <summary>Serves many requests on one engine at once. Any thread may use it.</summary>
    public sealed class Executor : IDisposable
    {
        private readonly ExecutorHandle handle;

        public Executor(Engine engine, ExecutorConfig config = null)
        {
            config = config ?? new ExecutorConfig();
            IntPtr isa = Marshal.StringToHGlobalAnsi(config.Isa);
            try
            {
                Native.trtllm_executor_config native = config.ToNative(isa);
                TrtllmException.Check(Native.trtllm_executor_create(engine.Handle, ref native, out handle));
            }
            finally
            {
                Marshal.FreeHGlobal(isa);
            }
        }

        /// <summary>
        /// The responses of a request, as they come. It is submitted when the enumeration begins, and cancelled when
        /// that is given up before its end. Cancelling by the token ends in one more response, and then in an
        /// <see cref="OperationCanceledException"/>. A failed sequence throws its error.
        /// </summary>
        public IEnumerable<Response> Stream(
            Request request, CancellationToken cancellation = default(CancellationToken))
        {
            cancellation.ThrowIfCancellationRequested();
            ulong id = Submit(request);
            Response response = null;
            try
            {
                using (cancellation.Register(() => CancelQuietly(id)))
                {
                    while (response == null || !response.Last)
                    {
                        response = Await(id);
                        if (response.Error != null) throw response.Error;
                        yield return response;
                    }
                }
            }
            finally
            {
                if (response == null || !response.Last) Abandon(id);
            }
            if (response.FinishReason == FinishReason.Cancelled) cancellation.ThrowIfCancellationRequested();
        }

        /// <summary>The whole text of a request's first sequence.</summary>
        public string Generate(Request request, CancellationToken cancellation = default(CancellationToken))
        {
            var text = new StringBuilder();
            foreach (Response response in Stream(request, cancellation))
            {
                if (response.Sequence == 0) text.Append(response.Text);
            }
            return text.ToString();
        }

        /// <summary>
        /// Submits a request whose responses go to a callback: in order, one at a time per executor, on a thread of
        /// the library. The callback may submit and cancel. An exception that leaves it cancels the request and ends
        /// its calls; <see cref="Delivery.Completion"/> hands it on.
        /// </summary>
        public Delivery Submit(Request request, Action<Response> callback)
        {
            using (RequestHandle native = request.Create())
            {
                var listener = new Listener(this, callback);
                listener.Attach(native);
                TrtllmException.Check(Native.trtllm_executor_submit(handle, native, out ulong id));
                return new Delivery(id, listener.Completion);
            }
        }

        /// <summary>Asks to end a request early; one that has ended is no error.</summary>
        public void Cancel(ulong requestId) => TrtllmException.Check(Native.trtllm_executor_cancel(handle, requestId));

        /// <summary>Throws what stopped the executor, if anything did.</summary>
        public void CheckHealth() => TrtllmException.Check(Native.trtllm_executor_check_health(handle));

        public ExecutorStats Stats
        {
            get
            {
                TrtllmException.Check(Native.trtllm_executor_get_stats(
                    handle, Native.SizeOf<Native.trtllm_executor_stats>(), out Native.trtllm_executor_stats stats));
                return new ExecutorStats(stats);
            }
        }

        /// <summary>
        /// Cancels what is unfinished and stops the threads, so that whoever waits in a stream comes back. Inside a
        /// callback it throws <see cref="Status.WouldDeadlock"/>, and the executor goes on.
        /// </summary>
        public void Dispose()
        {
            if (handle.IsClosed) return;
            TrtllmException.Check(Native.trtllm_executor_shutdown(handle));
            handle.Dispose();
        }

        private ulong Submit(Request request)
        {
            using (RequestHandle native = request.Create())
            {
                TrtllmException.Check(Native.trtllm_executor_submit(handle, native, out ulong id));
                return id;
            }
        }

        private Response Await(ulong id)
        {
            TrtllmException.Check(Native.trtllm_executor_await(handle, id, Native.WaitForever, out IntPtr response));
            try
            {
                return new Response(response);
            }
            finally
            {
                Native.trtllm_response_destroy(response);
            }
        }

        /// <summary>A request that cannot be cancelled has nobody who waits for it.</summary>
        internal void CancelQuietly(ulong id)
        {
            try
            {
                Native.trtllm_executor_cancel(handle, id);
            }
            catch (ObjectDisposedException)
            {
            }
        }

        /// <summary>
        /// Cancels a request and takes what is left of it, so that nothing stays behind in the executor.
        /// </summary>
        private void Abandon(ulong id)
        {
            CancelQuietly(id);
            try
            {
                IntPtr response;
                while (Native.trtllm_executor_await(handle, id, Native.WaitForever, out response) == Status.Ok)
                {
                    Native.trtllm_response_destroy(response);
                }
            }
            catch (ObjectDisposedException)
            {
            }
        }
    }
}
