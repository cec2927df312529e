using System;
using System.Runtime.InteropServices;
using System.Text;

namespace Trtllm
{
    /// <summary>Texts and arrays on their way through C.</summary>
    internal static class Text
    {
        /// <summary>Refuses half a surrogate pair instead of sending something else.</summary>
        private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false, true);

        internal delegate Status Read(byte[] buffer, UIntPtr capacity, out UIntPtr length);

        internal static byte[] ToC(string text) => Utf8.GetBytes(text);

        /// <summary>Copies a text of so many bytes.</summary>
        internal static string FromC(IntPtr text, UIntPtr length)
        {
            var bytes = new byte[(int)length];
            Marshal.Copy(text, bytes, 0, bytes.Length);
            return Utf8.GetString(bytes);
        }

        /// <summary>Copies a text that ends with a NUL.</summary>
        internal static string FromC(IntPtr text)
        {
            int length = 0;
            while (Marshal.ReadByte(text, length) != 0) length++;
            return FromC(text, (UIntPtr)length);
        }

        /// <summary>Copies tokens; none is a null pointer.</summary>
        internal static uint[] TokensFromC(IntPtr tokens, UIntPtr count)
        {
            var copied = new int[(int)count];
            if (copied.Length > 0) Marshal.Copy(tokens, copied, 0, copied.Length);
            return Array.ConvertAll(copied, token => unchecked((uint)token));
        }

        /// <summary>Takes a text of unknown size, also when it grows between two calls.</summary>
        internal static string OfUnknownSize(Read read)
        {
            TrtllmException.Check(read(null, UIntPtr.Zero, out UIntPtr length));
            while (true)
            {
                var buffer = new byte[(int)length + 1];
                Status status = read(buffer, (UIntPtr)buffer.Length, out length);
                if (status == Status.BufferTooSmall) continue;
                TrtllmException.Check(status);
                return Utf8.GetString(buffer, 0, (int)length);
            }
        }
    }
}
