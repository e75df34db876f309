/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/core/context_set.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "lib/core/grow.h"

void dkt_context_set_fini(dkt_context_set_t *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        free(self->entries[i]);
    }
    free(self->entries);
    free(self->table);
    *self = (dkt_context_set_t){0};
}

uint64_t dkt_context_set_hash(const dkt_context_set_t *self)
{
    return self->sum + self->table_hash;
}

static void s_copy_id(const dkt_client_t *client, char out[DKT_CONTEXT_CLIENT_CHARS + 1])
{
    dkt_id_text_t text;
    dkt_client_text(client, &text);
    assert(strlen(text.text) == DKT_CONTEXT_CLIENT_CHARS);
    memcpy(out, text.text, DKT_CONTEXT_CLIENT_CHARS + 1);
}

bool dkt_context_set_find(const dkt_context_set_t *self, const char *id, uint32_t *index)
{
    uint32_t low = 0, high = self->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(self->entries[middle]->id, id);
        if (order == 0) {
            *index = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *index = low;
    return false;
}

static dkt_context_entry_t *s_make_entry(dkt_view_t record)
{
    dkt_context_record_t decoded;
    if (!dkt_context_read_record(record.data, record.len, &decoded)) {
        return NULL;
    }
    dkt_context_entry_t *entry = malloc(sizeof *entry + record.len);
    if (entry) {
        s_copy_id(&decoded.client, entry->id);
        entry->len = record.len;
        entry->hash = XXH64(record.data, record.len, 0);
        memcpy(entry->bytes, record.data, record.len);
    }
    return entry;
}

bool dkt_context_set_put(dkt_context_set_t *self, dkt_view_t record)
{
    uint32_t index = 0;
    dkt_context_entry_t *entry = s_make_entry(record);
    if (!entry) {
        return false;
    }
    if (dkt_context_set_find(self, entry->id, &index)) {
        self->sum -= self->entries[index]->hash;
        free(self->entries[index]);
    } else {
        void *entries = self->entries;
        if (self->count == DKT_CONTEXT_RECORDS_MAX ||
            !dkt_grow(&entries, &self->max, self->count + 1, sizeof *self->entries)) {
            free(entry);
            return false;
        }
        self->entries = entries;
        memmove(&self->entries[index + 1], &self->entries[index],
                (self->count - index) * sizeof *self->entries);
        self->count++;
    }
    self->entries[index] = entry;
    self->sum += entry->hash;
    return true;
}

void dkt_context_set_remove(dkt_context_set_t *self, const dkt_client_t *client)
{
    char id[DKT_CONTEXT_CLIENT_CHARS + 1];
    uint32_t index = 0;
    s_copy_id(client, id);
    if (dkt_context_set_find(self, id, &index)) {
        self->sum -= self->entries[index]->hash;
        free(self->entries[index]);
        self->count--;
        memmove(&self->entries[index], &self->entries[index + 1],
                (self->count - index) * sizeof *self->entries);
    }
}

bool dkt_context_set_read_table(dkt_view_t bytes, dkt_table_t *table)
{
    dkt_r_t r = {.data = bytes.data, .len = bytes.len};
    return dkt_link_get_table(&r, table) && dkt_link_end(&r);
}

bool dkt_context_set_put_table(dkt_context_set_t *self, dkt_view_t table, bool *changed)
{
    dkt_table_t decoded;
    uint64_t hash = XXH64(table.data, table.len, 0);
    *changed = false;
    if (self->table && self->table_len == table.len && self->table_hash == hash) {
        return true;
    }
    if (table.len > DKT_CONTEXT_TABLE_BYTES_MAX || !dkt_context_set_read_table(table, &decoded)) {
        return false;
    }
    uint8_t *copy = malloc(table.len);
    if (!copy) {
        return false;
    }
    memcpy(copy, table.data, table.len);
    free(self->table);
    self->table = copy;
    self->table_len = table.len;
    self->table_hash = hash;
    *changed = true;
    return true;
}
