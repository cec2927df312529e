using System;
using System.Runtime.InteropServices;

namespace Trtllm
{
    /// <summary>Why a sequence ended.</summary>
    public enum FinishReason
    {
        None = 0,
        Eos = 1,
        Stop = 2,
        Length = 3,
        Cancelled = 4,
        TimeLimit = 5,
        Error = 6,
    }

    /// <summary>A token and the natural logarithm of its probability.</summary>
    public struct TokenLogprob
    {
        public uint Token { get; internal set; }
        public float Logprob { get; internal set; }
    }

    /// <summary>A piece of a request's output.</summary>
    public sealed class Response
    {
        public ulong RequestId { get; }

        /// <summary>Which of the request's sequences this is of, counted from 0.</summary>
        public uint Sequence { get; }

        /// <summary>New text: whole characters, possibly none.</summary>
        public string Text { get; }

        public uint[] Tokens { get; }

        /// <summary>One for each new token when they were asked for, otherwise none.</summary>
        public TokenLogprob[] Logprobs { get; }

        /// <summary>
        /// For each new token the most likely ones; where a token has fewer, the rest are token 4294967295.
        /// </summary>
        public TokenLogprob[][] TopLogprobs { get; }

        /// <summary>Other than None in the last response of a sequence.</summary>
        public FinishReason FinishReason { get; }

        /// <summary>What went wrong when the sequence failed, otherwise null.</summary>
        public TrtllmException Error { get; }

        /// <summary>No further response of this request follows.</summary>
        public bool Last { get; }

        /// <summary>Complete in the last response.</summary>
        public RequestStats Stats { get; }

        /// <summary>Copies what a response of the library holds.</summary>
        internal Response(IntPtr handle)
        {
            TrtllmException.Check(Native.trtllm_response_get(
                handle, Native.SizeOf<Native.trtllm_response_view>(), out Native.trtllm_response_view view));
            RequestId = view.request_id;
            Sequence = view.sequence;
            Text = Trtllm.Text.FromC(view.text, view.text_length);
            Tokens = Trtllm.Text.TokensFromC(view.tokens, view.token_count);
            Logprobs = view.logprobs == IntPtr.Zero ? new TokenLogprob[0] : Row(view.logprobs, 0, Tokens.Length);
            TopLogprobs = Rows(view.top_logprobs, (int)view.top_logprobs_per_token);
            FinishReason = (FinishReason)view.finish_reason;
            Last = view.last != 0;
            if (view.status != 0)
            {
                Error = new TrtllmException((Status)view.status, Trtllm.Text.FromC(view.error_message));
            }
            Stats = new RequestStats(handle);
        }

        private TokenLogprob[][] Rows(IntPtr entries, int perToken)
        {
            var rows = new TokenLogprob[perToken == 0 ? 0 : Tokens.Length][];
            for (int i = 0; i < rows.Length; i++) rows[i] = Row(entries, i * perToken, perToken);
            return rows;
        }

        private static TokenLogprob[] Row(IntPtr entries, int first, int count)
        {
            int size = Marshal.SizeOf(typeof(Native.trtllm_token_logprob));
            var row = new TokenLogprob[count];
            for (int i = 0; i < count; i++)
            {
                var entry = (Native.trtllm_token_logprob)Marshal.PtrToStructure(
                    entries + (first + i) * size, typeof(Native.trtllm_token_logprob));
                row[i] = new TokenLogprob { Token = entry.token, Logprob = entry.logprob };
            }
            return row;
        }
    }

    /// <summary>Times of a request, counted from its submission, and counts.</summary>
    public sealed class RequestStats
    {
        public ulong PromptTokens { get; }
        public ulong CachedTokens { get; }
        public ulong GeneratedTokens { get; }
        public ulong Preemptions { get; }
        public TimeSpan Queued { get; }
        public TimeSpan FirstToken { get; }
        public TimeSpan Total { get; }

        internal RequestStats(IntPtr response)
        {
            TrtllmException.Check(Native.trtllm_response_get_stats(
                response, Native.SizeOf<Native.trtllm_request_stats>(), out Native.trtllm_request_stats stats));
            PromptTokens = stats.prompt_tokens;
            CachedTokens = stats.cached_tokens;
            GeneratedTokens = stats.generated_tokens;
            Preemptions = stats.preemptions;
            Queued = FromNanoseconds(stats.queued_ns);
            FirstToken = FromNanoseconds(stats.first_token_ns);
            Total = FromNanoseconds(stats.total_ns);
        }

        private static TimeSpan FromNanoseconds(ulong nanoseconds) => TimeSpan.FromTicks((long)(nanoseconds / 100));
    }
}
