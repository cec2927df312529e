using System;

namespace Trtllm
{
    /// <summary>
    /// How a token is chosen, and when a generation ends. Begins from the defaults: greedy, at most 128 tokens.
    /// </summary>
    public sealed class Sampling
    {
        public ulong Seed { get; set; }
        public float Temperature { get; set; }
        public uint TopK { get; set; }
        public float TopP { get; set; }
        public float MinP { get; set; }
        public float RepetitionPenalty { get; set; }
        public float PresencePenalty { get; set; }
        public float FrequencyPenalty { get; set; }
        public uint MinTokens { get; set; }
        public uint MaxTokens { get; set; }

        /// <summary>Sequences generated from the one prompt.</summary>
        public uint N { get; set; }

        /// <summary>
        /// Of so many most likely tokens beside the chosen one; 0: of the chosen one alone; -1: none.
        /// </summary>
        public int Logprobs { get; set; }

        public bool IgnoreEos { get; set; }

        public Sampling() : this(Defaults()) { }

        internal Sampling(Native.trtllm_sampling native)
        {
            Seed = native.seed;
            Temperature = native.temperature;
            TopK = native.top_k;
            TopP = native.top_p;
            MinP = native.min_p;
            RepetitionPenalty = native.repetition_penalty;
            PresencePenalty = native.presence_penalty;
            FrequencyPenalty = native.frequency_penalty;
            MinTokens = native.min_tokens;
            MaxTokens = native.max_tokens;
            N = native.n;
            Logprobs = native.logprobs;
            IgnoreEos = native.ignore_eos != 0;
        }

        internal Native.trtllm_sampling ToNative() => new Native.trtllm_sampling
        {
            struct_size = Native.SizeOf<Native.trtllm_sampling>(),
            seed = Seed,
            temperature = Temperature,
            top_k = TopK,
            top_p = TopP,
            min_p = MinP,
            repetition_penalty = RepetitionPenalty,
            presence_penalty = PresencePenalty,
            frequency_penalty = FrequencyPenalty,
            min_tokens = MinTokens,
            max_tokens = MaxTokens,
            n = N,
            logprobs = Logprobs,
            ignore_eos = IgnoreEos ? 1 : 0,
        };

        private static Native.trtllm_sampling Defaults()
        {
            TrtllmException.Check(Native.trtllm_sampling_init(
                Native.SizeOf<Native.trtllm_sampling>(), out Native.trtllm_sampling sampling));
            return sampling;
        }
    }
}
