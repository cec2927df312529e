using System;
using System.IO;
using System.Reflection;

/// <summary>
/// Tests.exe CHECKPOINT FOLDER builds an engine in the empty folder and runs every public method of the classes that
/// end in Tests. Tests.exe declarations prints what <see cref="Declarations"/> has.
/// </summary>
internal static class Program
{
    private static int Main(string[] arguments)
    {
        if (arguments.Length == 1 && arguments[0] == "declarations")
        {
            Declarations.Print();
            return 0;
        }
        Model.Build(arguments[0], Path.Combine(arguments[1], "model.engine"));
        int failed = 0;
        foreach (Type type in typeof(Program).Assembly.GetTypes())
        {
            if (type.Name.EndsWith("Tests")) failed += Run(type);
        }
        Model.Engine.Dispose();
        return failed == 0 ? 0 : 1;
    }

    private static int Run(Type type)
    {
        int failed = 0;
        foreach (MethodInfo test in type.GetMethods(BindingFlags.Static | BindingFlags.Public))
        {
            try
            {
                test.Invoke(null, null);
                Console.WriteLine("ok " + test.Name);
            }
            catch (TargetInvocationException exception)
            {
                Console.WriteLine("FAILED " + test.Name + ": " + exception.InnerException);
                failed++;
            }
        }
        return failed;
    }
}
