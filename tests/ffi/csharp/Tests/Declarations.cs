using System;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using Trtllm;

/// <summary>What the assembly says of the library's structs and constants, to be held against the headers.</summary>
internal static class Declarations
{
    internal static void Print()
    {
        foreach (Type type in typeof(Native).GetNestedTypes(BindingFlags.NonPublic))
        {
            if (type.IsValueType) PrintStruct(type);
        }
        foreach (Type type in typeof(Native).Assembly.GetExportedTypes())
        {
            if (type.IsEnum) PrintEnum(type);
        }
    }

    private static void PrintStruct(Type type)
    {
        Console.WriteLine(type.Name + " " + Marshal.SizeOf(type));
        foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.NonPublic))
        {
            Console.WriteLine(type.Name + "." + field.Name + " " + Marshal.OffsetOf(type, field.Name));
        }
    }

    private static void PrintEnum(Type type)
    {
        foreach (object value in Enum.GetValues(type))
        {
            Console.WriteLine("TRTLLM_" + NameInC(type.Name) + "_" + NameInC(value.ToString()) + " " + (int)value);
        }
    }

    /// <summary>TimeLimit becomes TIME_LIMIT, and BF16 stays.</summary>
    private static string NameInC(string name) => Regex.Replace(name, "([a-z])([A-Z])", "$1_$2").ToUpperInvariant();
}
