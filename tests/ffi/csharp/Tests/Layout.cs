using System;
using System.Reflection;
using System.Runtime.InteropServices;
using Trtllm;

internal static class Layout
{
    internal static void Print()
    {
        foreach (Type type in typeof(Native).GetNestedTypes(BindingFlags.NonPublic))
        {
            if (!type.IsValueType) continue;
            Console.WriteLine(type.Name + " " + Marshal.SizeOf(type));
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic))
            {
                Console.WriteLine(type.Name + "." + field.Name + " " + Marshal.OffsetOf(type, field.Name));
            }
        }
    }
}
