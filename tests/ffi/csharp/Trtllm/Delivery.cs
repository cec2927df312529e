using System;
using System.Runtime.InteropServices;
using System.Threading.Tasks;

namespace Trtllm
{
    /// <summary>A request whose responses go to a callback.</summary>
    public sealed class Delivery
    {
        public ulong RequestId { get; }

        /// <summary>Ends when no callback can come any more; fails with what the callback threw.</summary>
        public Task Completion { get; }

        internal Delivery(ulong requestId, Task completion)
        {
            RequestId = requestId;
            Completion = completion;
        }
    }

    /// <summary>A callback on its way through C: the library holds it until no response can come any more.</summary>
    internal sealed class Listener
    {
        // Static, so that the garbage collector leaves them to the library.
        private static readonly Native.ResponseCallback onResponse = OnResponse;
        private static readonly Native.UserDataFree onFree = OnFree;

        private readonly Executor executor;
        private readonly Action<Response> callback;

        // Whoever waits goes on in a thread of .NET, not in the one that the library delivers with.
        private readonly TaskCompletionSource<bool> completion =
            new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);

        private Exception thrown;

        internal Listener(Executor executor, Action<Response> callback)
        {
            this.executor = executor;
            this.callback = callback;
        }

        internal Task Completion => completion.Task;

        /// <summary>Gives this to the library, which frees it in OnFree.</summary>
        internal void Attach(RequestHandle request)
        {
            GCHandle self = GCHandle.Alloc(this);
            Status status = Native.trtllm_request_set_callback(request, onResponse, GCHandle.ToIntPtr(self), onFree);
            if (status != Status.Ok) self.Free();
            TrtllmException.Check(status);
        }

        private static void OnResponse(IntPtr userData, IntPtr handle)
        {
            var self = (Listener)GCHandle.FromIntPtr(userData).Target;
            if (self.thrown != null) return;
            ulong id = 0;
            try
            {
                var response = new Response(handle);
                id = response.RequestId;
                self.callback(response);
            }
            catch (Exception exception)
            {
                self.thrown = exception;
                self.executor.CancelQuietly(id);
            }
        }

        private static void OnFree(IntPtr userData)
        {
            GCHandle handle = GCHandle.FromIntPtr(userData);
            var self = (Listener)handle.Target;
            handle.Free();
            if (self.thrown != null) self.completion.SetException(self.thrown);
            else self.completion.SetResult(true);
        }
    }
}
