using System;

namespace Trtllm
{
    /// <summary>A failure of the library: its status, and a message that names what was wrong.</summary>
    public sealed class TrtllmException : Exception
    {
        public Status Status { get; }

        internal TrtllmException(Status status, string message) : base(message)
        {
            Status = status;
        }

        /// <summary>Throws the calling thread's last error unless status is Ok.</summary>
        internal static void Check(Status status)
        {
            if (status != Status.Ok) throw new TrtllmException(status, Text.FromC(Native.trtllm_last_error_message()));
        }
    }
}
