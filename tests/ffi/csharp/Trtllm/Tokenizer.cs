using System;

namespace Trtllm
{
    /// <summary>Turns text into an engine's tokens and back. Any thread may use it.</summary>
    public sealed class Tokenizer : IDisposable
    {
        private readonly TokenizerHandle handle;

        public Tokenizer(Engine engine)
        {
            TrtllmException.Check(Native.trtllm_tokenizer_create(engine.Handle, out handle));
        }

        /// <summary>With the special tokens of a prompt (such as BOS) or without.</summary>
        public uint[] Encode(string text, bool specialTokens)
        {
            byte[] bytes = Text.ToC(text);
            // A token has at least one byte of text, and few tokens are special.
            var tokens = new uint[bytes.Length + 8];
            while (true)
            {
                Status status = Native.trtllm_tokenizer_encode(
                    handle, bytes, (UIntPtr)bytes.Length, specialTokens ? 1 : 0,
                    tokens, (UIntPtr)tokens.Length, out UIntPtr count);
                if (status == Status.BufferTooSmall)
                {
                    tokens = new uint[(int)count];
                    continue;
                }
                TrtllmException.Check(status);
                Array.Resize(ref tokens, (int)count);
                return tokens;
            }
        }

        /// <summary>Leaves special tokens out.</summary>
        public string Decode(uint[] tokens) =>
            Text.OfUnknownSize((byte[] buffer, UIntPtr capacity, out UIntPtr length) => Native.trtllm_tokenizer_decode(
                handle, tokens, (UIntPtr)tokens.Length, 1, buffer, capacity, out length));

        /// <summary>
        /// Renders a conversation, a JSON array of role and content, up to where the assistant's answer begins.
        /// </summary>
        public string ApplyChatTemplate(string messages)
        {
            byte[] bytes = Text.ToC(messages);
            return Text.OfUnknownSize((byte[] buffer, UIntPtr capacity, out UIntPtr length) =>
                Native.trtllm_tokenizer_apply_chat_template(
                    handle, bytes, (UIntPtr)bytes.Length, 1, buffer, capacity, out length));
        }

        public void Dispose() => handle.Dispose();
    }
}
