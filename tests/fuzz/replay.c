/* Runs a target on the files that it is given, or all files of a folder, once each. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static size_t count;

static void fail(const char *path)
{
    perror(path);
    exit(1);
}

static void run_file(const char *path)
{
    struct stat about;
    FILE *file = fopen(path, "rb");
    if (!file || stat(path, &about))
        fail(path);
    size_t size = (size_t)about.st_size;
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes || fread(bytes, 1, size, file) != size)
        fail(path);
    fclose(file);
    fprintf(stderr, "%s\n", path); /* the last line before a failure names the input */
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    count++;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void run_folder(const char *path)
{
    struct dirent **entries;
    int found = scandir(path, &entries, is_visible, alphasort);
    if (found < 0)
        fail(path);
    for (int i = 0; i < found; i++) {
        char file[4096];
        snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
        run_file(file);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat about;
        if (stat(argv[i], &about))
            fail(argv[i]);
        if (S_ISDIR(about.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i]);
    }
    printf("%zu inputs\n", count);
    return count ? 0 : 1; /* a corpus that is not there tests nothing */
}
