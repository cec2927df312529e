using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Trtllm
{
    /// <summary>
    /// Is told how far a build or a load is: the phase, and its done fraction from 0 to 1. Returning false cancels:
    /// the call throws a <see cref="TrtllmException"/> of <see cref="Status.Cancelled"/>. An exception cancels too,
    /// and the call throws that one.
    /// </summary>
    public delegate bool Progress(string phase, double fraction);

    /// <summary>A <see cref="Progress"/> on its way through C, and what it threw.</summary>
    internal sealed class ProgressCall
    {
        // Static, so that the garbage collector leaves it to the library.
        private static readonly Native.ProgressCallback onProgress = OnProgress;

        private readonly Progress progress;
        private ExceptionDispatchInfo thrown;

        private ProgressCall(Progress progress)
        {
            this.progress = progress;
        }

        /// <summary>Makes a call with a callback and its user data, which are zero for no progress.</summary>
        internal static void Run(Progress progress, Func<IntPtr, IntPtr, Status> call)
        {
            if (progress == null)
            {
                TrtllmException.Check(call(IntPtr.Zero, IntPtr.Zero));
                return;
            }
            var self = new ProgressCall(progress);
            GCHandle userData = GCHandle.Alloc(self);
            try
            {
                Status status = call(Marshal.GetFunctionPointerForDelegate(onProgress), GCHandle.ToIntPtr(userData));
                self.thrown?.Throw();
                TrtllmException.Check(status);
            }
            finally
            {
                userData.Free();
            }
        }

        private static int OnProgress(IntPtr userData, IntPtr phase, double fraction)
        {
            var self = (ProgressCall)GCHandle.FromIntPtr(userData).Target;
            try
            {
                return self.progress(Text.FromC(phase), fraction) ? 0 : 1;
            }
            catch (Exception exception)
            {
                self.thrown = ExceptionDispatchInfo.Capture(exception);
                return 1;
            }
        }
    }
}
