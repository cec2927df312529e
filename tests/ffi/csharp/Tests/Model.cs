using Trtllm;

/// <summary>The tiny model, which all tests share.</summary>
internal static class Model
{
    internal const string Prompt = "Once upon a time";

    /// <summary>What the README of the model tells as its greedy sample.</summary>
    internal const string Opening =
        ", there was a little rabbit named Theo. One night, Theo was in bed with his orange scarf when he heard a noise.";

    internal static string Checkpoint { get; private set; }
    internal static string EnginePath { get; private set; }
    internal static Engine Engine { get; private set; }

    internal static void Build(string checkpoint, string enginePath)
    {
        Checkpoint = checkpoint;
        EnginePath = enginePath;
        Builder.Build(checkpoint, enginePath);
        Engine = new Engine(enginePath);
    }

    /// <summary>A request for exactly so many tokens behind the prompt.</summary>
    internal static Request Greedy(uint maxTokens) =>
        new Request(Prompt) { Sampling = new Sampling { MaxTokens = maxTokens, IgnoreEos = true } };
}
