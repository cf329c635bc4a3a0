// Read by LeakSanitizer, in whatever test this is linked into: clang's OpenMP runtime keeps, to the
// end of the process, what its larger teams had.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp.so\n"; }
