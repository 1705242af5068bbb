/*
 * A batch of connections as it is packed (kvd.ipc.messages).
 */

#ifndef KVD_MESSAGE_H
#define KVD_MESSAGE_H

#include <stdint.h>

typedef struct __attribute__((packed)) {
    uint8_t kind;               /* BATCH_KIND */
    uint64_t number;
    uint32_t connections, group;
    uint8_t asks;
} PackedBatch;

enum { BATCH_KIND = 1 };

#endif
