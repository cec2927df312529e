using System;
using System.Collections.Generic;

namespace Trtllm
{
    /// <summary>A generation: a prompt, how to sample, what to return. It may be changed and submitted again.</summary>
    public sealed class Request
    {
        /// <summary>The prompt is Chat, else Tokens, else Text. Chat is a JSON array of role and content.</summary>
        public string Chat { get; set; }

        public uint[] Tokens { get; set; }
        public string Text { get; set; }

        /// <summary>Null: the engine's defaults.</summary>
        public Sampling Sampling { get; set; }

        /// <summary>End the generation and are not delivered.</summary>
        public List<string> StopStrings { get; } = new List<string>();

        /// <summary>End the generation and are delivered as tokens.</summary>
        public List<uint[]> StopTokens { get; } = new List<uint[]>();

        /// <summary>Added to the logits of tokens; minus infinity bans one.</summary>
        public Dictionary<uint, float> LogitBias { get; } = new Dictionary<uint, float>();

        /// <summary>True: responses come as tokens come; false: one for each sequence, at its end.</summary>
        public bool Streaming { get; set; } = true;

        /// <summary>Ends the request when it is not finished so long after its submission; zero: never.</summary>
        public TimeSpan TimeLimit { get; set; }

        /// <summary>Cached prefixes are shared only between requests of equal salt.</summary>
        public byte[] Salt { get; set; } = new byte[0];

        public Request() { }

        public Request(string text)
        {
            Text = text;
        }

        /// <summary>The library's request of this description, to be disposed once it is submitted.</summary>
        internal RequestHandle Create()
        {
            TrtllmException.Check(Native.trtllm_request_create(out RequestHandle request));
            try
            {
                SetPrompt(request);
                SetStops(request);
                SetRest(request);
                return request;
            }
            catch
            {
                request.Dispose();
                throw;
            }
        }

        private void SetPrompt(RequestHandle request)
        {
            if (Chat != null)
            {
                byte[] chat = Trtllm.Text.ToC(Chat);
                TrtllmException.Check(Native.trtllm_request_set_chat(request, chat, (UIntPtr)chat.Length));
            }
            else if (Tokens != null)
            {
                TrtllmException.Check(Native.trtllm_request_set_tokens(request, Tokens, (UIntPtr)Tokens.Length));
            }
            else
            {
                byte[] text = Trtllm.Text.ToC(Text ?? "");
                TrtllmException.Check(Native.trtllm_request_set_text(request, text, (UIntPtr)text.Length));
            }
        }

        private void SetStops(RequestHandle request)
        {
            foreach (string stop in StopStrings)
            {
                byte[] text = Trtllm.Text.ToC(stop);
                TrtllmException.Check(Native.trtllm_request_add_stop_string(request, text, (UIntPtr)text.Length));
            }
            foreach (uint[] stop in StopTokens)
            {
                TrtllmException.Check(Native.trtllm_request_add_stop_tokens(request, stop, (UIntPtr)stop.Length));
            }
        }

        private void SetRest(RequestHandle request)
        {
            if (Sampling != null)
            {
                Native.trtllm_sampling sampling = Sampling.ToNative();
                TrtllmException.Check(Native.trtllm_request_set_sampling(request, ref sampling));
            }
            foreach (KeyValuePair<uint, float> bias in LogitBias)
            {
                TrtllmException.Check(Native.trtllm_request_add_logit_bias(request, bias.Key, bias.Value));
            }
            TrtllmException.Check(Native.trtllm_request_set_stream(request, Streaming ? 1 : 0));
            TrtllmException.Check(
                Native.trtllm_request_set_time_limit(request, checked((ulong)TimeLimit.TotalMilliseconds)));
            TrtllmException.Check(Native.trtllm_request_set_salt(request, Salt, (UIntPtr)Salt.Length));
        }
    }
}
