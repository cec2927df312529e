using System;
using Trtllm;

internal static class Check
{
    internal static void That(bool condition, object what = null)
    {
        if (!condition) throw new Exception("not so: " + what);
    }

    internal static void Equal<T>(T expected, T found)
    {
        That(Equals(expected, found), found + " is not " + expected);
    }

    internal static T Throws<T>(Action action) where T : Exception
    {
        try
        {
            action();
        }
        catch (T exception)
        {
            return exception;
        }
        throw new Exception("nothing was thrown");
    }

    internal static void Fails(Func<Status> call, Status status, string culprit) =>
        Fails(() => TrtllmException.Check(call()), status, culprit);

    /// <summary>The library fails with that status, and its message names the culprit.</summary>
    internal static void Fails(Action action, Status status, string culprit)
    {
        TrtllmException exception = Throws<TrtllmException>(action);
        Equal(status, exception.Status);
        That(exception.Message.Contains(culprit), exception.Message + " does not name " + culprit);
    }
}
