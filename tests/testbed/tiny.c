/* The whole content of the tiny image: a job with neither Python nor a shell around it.
 *
 *     /tiny [CODE [SECONDS]]
 *
 * Prints its arguments and its run, sleeps, and exits with CODE.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *run = getenv("LAUNCH_RUN_ID");

    for (int i = 1; i < argc; i++)
        printf("argument %d: %s\n", i, argv[i]);
    printf("LAUNCH_RUN_ID=%s\n", run ? run : "(not set)");
    fflush(stdout);
    if (argc > 2)
        sleep(atoi(argv[2]));
    return argc > 1 ? atoi(argv[1]) : 0;
}
