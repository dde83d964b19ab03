/* A stock gSOAP client of the counter service: peer URL offer|none two-way|one-way|loss MESSAGES.
 * It prints one line of JSON about its sequence: the values that came back, what was not
 * acknowledged, and how often it sent messages again. With "loss" exchanges may fail: then it has
 * its sequence sent again until that gets through, which discards the replies; their places stay
 * empty. */
#include "Counter.nsmap"
#include "soapH.h"
#include "wsaapi.h"
#include "wsrmapi.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The generated parts want a service, which nobody calls. */
int c__increment(struct soap *soap, struct c__incrementResponse *out) {
    (void)out;
    return soap_sender_fault(soap, "a client only", NULL);
}

int SOAP_ENV__Fault(struct soap *soap, char *code, char *string, char *actor,
                    struct SOAP_ENV__Detail *detail, struct SOAP_ENV__Code *code12,
                    struct SOAP_ENV__Reason *reason, char *node, char *role,
                    struct SOAP_ENV__Detail *detail12) {
    (void)code, (void)string, (void)actor, (void)detail, (void)code12, (void)reason;
    (void)node, (void)role, (void)detail12;
    return soap_send_empty_response(soap, SOAP_OK);
}

static int failed(struct soap *soap, const char *what) {
    soap_print_fault(soap, stderr);
    printf("{\"error\": \"%s: %d\"}\n", what, soap->error);
    return 1;
}

/* The generated part of a one-way call, which nobody calls here either. */
int c__increment_(struct soap *soap) {
    return soap_sender_fault(soap, "a client only", NULL);
}

enum { MOST = 1000, TRIES = 50 };

static const char *action = "urn:bft-ws:counter/increment";

/* A message without a reply. What comes on its connection is an acknowledgement at most, which is
 * read as one. */
static int one_way(struct soap *soap, soap_wsrm_sequence_handle seq) {
    struct __wsrm__SequenceAcknowledgement nothing;
    if (soap_wsrm_request_acks(soap, seq, soap_wsa_rand_uuid(soap), action) ||
        soap_wsa_add_ReplyTo(soap, soap_wsa_noneURI) ||
        soap_send_c__increment_(soap, soap_wsrm_to(seq), action)) {
        return soap->error;
    }
    if (soap_recv___wsrm__SequenceAcknowledgement(soap, &nothing)) {
        return soap->error == 202 ? SOAP_OK : soap->error;
    }
    /* It takes the acknowledgement out of the header, and calls what is on no sequence a fault. */
    soap_wsrm_check(soap);
    return SOAP_OK;
}

/* A call and its reply. */
static int two_way(struct soap *soap, soap_wsrm_sequence_handle seq, int offer, ULONG64 *value) {
    struct c__incrementResponse out;
    if (soap_wsrm_request_acks(soap, seq, soap_wsa_rand_uuid(soap), action) ||
        soap_call_c__increment(soap, soap_wsrm_to(seq), action, &out)) {
        return soap->error;
    }
    *value = out.value;
    /* Takes the acknowledgement out of the header of the reply; one that is on no sequence it
     * calls a fault when it has done so. */
    return soap_wsrm_check(soap) && offer ? soap->error : SOAP_OK;
}

/* Sends again what is not acknowledged, until that gets through whole. */
static int again(struct soap *soap, soap_wsrm_sequence_handle seq, int *resent) {
    for (int i = 0; i < TRIES; i++) {
        ++*resent;
        soap_closesock(soap);
        if (soap_wsrm_resend(soap, seq, 0, 0) == SOAP_OK) {
            return SOAP_OK;
        }
    }
    return soap->error;
}

static int create(struct soap *soap, const char *url, int offer, soap_wsrm_sequence_handle *seq) {
    return offer ? soap_wsrm_create_offer(soap, url, NULL, NULL, 60000, NoDiscard,
                                          soap_wsa_rand_uuid(soap), seq)
                 : soap_wsrm_create(soap, url, NULL, 60000, soap_wsa_rand_uuid(soap), seq);
}

/* Ends the sequence. In WS-RM 1.0 the end of the offered sequence comes back, on HTTP status 200,
 * which the plugin takes for that of its own sequence: it then calls the Identifier unknown. */
static int terminate(struct soap *soap, soap_wsrm_sequence_handle seq, int offer) {
    int wrong = soap_wsrm_terminate(soap, seq, soap_wsa_rand_uuid(soap));
#ifdef SOAP_WSRM_2005
    if (offer && soap->error == SOAP_FAULT && soap->status == 200) {
        return SOAP_OK;
    }
#endif
    return wrong;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s URL offer|none two-way|one-way|loss MESSAGES\n", argv[0]);
        return 2;
    }
    int offer = strcmp(argv[2], "offer") == 0, alone = strcmp(argv[3], "one-way") == 0;
    int tries = strcmp(argv[3], "loss") == 0 ? TRIES : 1;
    int messages = atoi(argv[4]), resent = 0;
    struct soap *soap = soap_new1(SOAP_XML_STRICT);
    soap_register_plugin(soap, soap_wsa);
    soap_register_plugin(soap, soap_wsrm);
    soap->send_timeout = soap->recv_timeout = 30;
    /* soap_wsrm_check is a server's, and answers some replies; our stdout is for the report. */
    soap->sendfd = open("/dev/null", O_WRONLY);
    soap_wsrm_sequence_handle seq;
    int wrong = 1;
    for (int i = 0; wrong && i < tries; i++) {
        wrong = create(soap, argv[1], offer, &seq);
    }
    if (wrong) {
        return failed(soap, "CreateSequence");
    }
    ULONG64 values[MOST] = {0};
    for (int i = 0; i < messages && i < MOST; i++) {
        wrong = alone ? one_way(soap, seq) : two_way(soap, seq, offer, &values[i]);
        if (wrong && (tries == 1 || again(soap, seq, &resent))) {
            return failed(soap, "increment");
        }
    }
    ULONG64 nack = soap_wsrm_nack(seq);
    wrong = 1;
    for (int i = 0; wrong && i < tries; i++) {
        wrong = soap_wsrm_close(soap, seq, soap_wsa_rand_uuid(soap));
    }
    if (wrong) {
        return failed(soap, "CloseSequence");
    }
    wrong = 1;
    for (int i = 0; wrong && i < tries; i++) {
        wrong = terminate(soap, seq, offer);
    }
    if (wrong) {
        return failed(soap, "TerminateSequence");
    }
    printf("{\"values\": [");
    for (int i = 0; i < messages && i < MOST; i++) {
        printf(values[i] ? "%s\"" SOAP_ULONG_FORMAT "\"" : "%s\"\"", i ? ", " : "", values[i]);
    }
    printf("], \"resent\": %d, \"not_acknowledged\": " SOAP_ULONG_FORMAT "}\n", resent, nack);
    soap_wsrm_seq_free(soap, seq);
    soap_destroy(soap);
    soap_end(soap);
    soap_free(soap);
    return 0;
}
