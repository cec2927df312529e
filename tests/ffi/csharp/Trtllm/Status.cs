namespace Trtllm
{
    /// <summary>What came of a call or of a request; a later version may add some.</summary>
    public enum Status
    {
        Ok = 0,
        InvalidArgument = 100,
        InvalidHandle = 101,
        InvalidState = 102,
        WouldDeadlock = 103,
        BufferTooSmall = 104,
        Timeout = 105,
        Io = 200,
        NotFound = 201,
        Corrupt = 202,
        UnsupportedVersion = 203,
        UnsupportedFormat = 204,
        InvalidConfig = 205,
        InvalidCheckpoint = 206,
        InvalidTokenizer = 207,
        InvalidTemplate = 208,
        InvalidNetwork = 300,
        Unsupported = 301,
        OutOfMemory = 400,
        BudgetExceeded = 401,
        QueueFull = 402,
        RequestTooLarge = 403,
        DeviceUnavailable = 404,
        ThreadFailed = 405,
        DeviceLost = 406,
        Cancelled = 500,
        TimeLimit = 501,
        Numeric = 502,
        ShuttingDown = 503,
        Internal = 600,
        Panic = 601,
    }
}
