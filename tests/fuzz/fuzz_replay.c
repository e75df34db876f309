/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs every file of a corpus folder through the fuzz target, as it is, cut at every length and
 * with every byte changed once: what a build without libFuzzer can do.
 */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz_request.h"

#define S_FILE_BYTES_MAX 65536
#define S_FILES_MIN      40 /* the folder was found and is not empty */

static size_t s_read_file(const char *path, uint8_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "cannot open %s\n", path);
        exit(EXIT_FAILURE);
    }
    size_t len = fread(bytes, 1, S_FILE_BYTES_MAX, file);
    fclose(file);
    return len;
}

/* Each input in a block of its own size, so that a sanitizer sees a read behind its end. */
static void s_run(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    if (!exact) {
        exit(EXIT_FAILURE);
    }
    memcpy(exact, bytes, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static void s_run_variants(uint8_t *bytes, size_t len)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    for (size_t cut = 0; cut <= len; cut++) {
        s_run(bytes, cut);
    }
    for (size_t at = 0; at < len; at++) {
        for (size_t i = 0; i < sizeof changes; i++) {
            bytes[at] ^= changes[i];
            s_run(bytes, len);
            bytes[at] ^= changes[i];
        }
    }
}

int main(int argc, char **argv)
{
    static uint8_t bytes[S_FILE_BYTES_MAX];
    char pattern[4096];
    glob_t found;
    if (argc != 2 || snprintf(pattern, sizeof pattern, "%s/*", argv[1]) >= (int)sizeof pattern ||
        glob(pattern, 0, NULL, &found) != 0 || found.gl_pathc < S_FILES_MIN) {
        fprintf(stderr, "usage: fuzz_replay_request CORPUS-FOLDER\n");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        s_run_variants(bytes, s_read_file(found.gl_pathv[i], bytes));
    }
    printf("%zu files\n", found.gl_pathc);
    globfree(&found);
    return EXIT_SUCCESS;
}
