/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps of the schema on their way to the owners that run them. The table upgrades is read again
 * and again, so that whatever is lost here (an actor that ended, a vshard that moved) is asked for
 * once more. A tenant that sleeps is woken as by a probe: it sleeps again as soon as it has
 * answered.
 *
 *   migrate_target 0 -UPGRADES-> wanted -MIGRATED, ENDED, IDLE-> 0
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/node.h"

void dkt_node_migrate(dkt_record_t *record)
{
    if (record->migrate_target == 0) {
        return;
    }
    assert(record->actor);
    dkt_migrate_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->target = record->migrate_target;
    if (!dkt_actor_push(record->actor, &mail->mail, DKT_MAIL_MIGRATE)) {
        free(mail); /* its mailbox is full of works: asked again */
        record->migrate_target = 0;
    }
}

static void s_want(dkt_node_t *self, const dkt_upgrade_row_t *row)
{
    if (!dkt_node_owns(self, dkt_client_vshard(&row->client))) {
        return;
    }
    dkt_record_t *record = dkt_node_record(self, &row->client);
    if (!record || record->migrate_target != 0 || record->state == DKT_NODE_CLOSING) {
        return;
    }
    if (record->state == DKT_NODE_IDLE) {
        record->wanted = true;
        record->probe = true;
        self->probing++;
        self->counts.probes++;
        dkt_node_resolve(self, record);
    }
    record->migrate_target = row->target;
    if (record->state == DKT_NODE_STARTING || record->state == DKT_NODE_SERVING) {
        dkt_node_migrate(record);
    }
}

void dkt_node_upgrades(dkt_node_t *self, const dkt_upgrades_mail_t *upgrades)
{
    for (uint32_t i = 0; i < upgrades->count; i++) {
        s_want(self, &upgrades->rows[i]);
    }
}

void dkt_node_migrated(dkt_node_t *self, dkt_migrated_mail_t *mail)
{
    dkt_record_t *record = dkt_node_find(self, &mail->client);
    if (record) {
        record->migrate_target = 0;
    }
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_MIGRATED);
}

/* Why nobody could run it is worth telling; that the tenant moved or slept is not. */
void dkt_node_migrate_ended(dkt_node_t *self, dkt_record_t *record, const dkt_actor_mail_t *event)
{
    int32_t target = record->migrate_target;
    record->migrate_target = 0;
    if (target == 0 || event->clean || event->lock_held || event->stale) {
        return;
    }
    dkt_migrated_mail_t *mail = dkt_mail_alloc(sizeof *mail);
    mail->client = record->client;
    mail->target = target;
    mail->broke = event->served;
    snprintf(mail->text, sizeof mail->text, "%s", event->text);
    dkt_mail_post(self->env->directory_box, &mail->mail, DKT_MAIL_MIGRATED);
}
