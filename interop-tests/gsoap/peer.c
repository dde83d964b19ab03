/* A stock gSOAP client of the counter service: peer URL OFFER MESSAGES. It prints one line of
 * JSON about its sequence: the values that came back, and what was not acknowledged. */
#include "Counter.nsmap"
#include "soapH.h"
#include "wsaapi.h"
#include "wsrmapi.h"

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

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s URL offer|none MESSAGES\n", argv[0]);
        return 2;
    }
    const char *url = argv[1], *action = "urn:bft-ws:counter/increment";
    int messages = atoi(argv[3]);
    struct soap *soap = soap_new1(SOAP_XML_STRICT);
    soap_register_plugin(soap, soap_wsa);
    soap_register_plugin(soap, soap_wsrm);
    soap->send_timeout = soap->recv_timeout = 30;
    soap_wsrm_sequence_handle seq;
    int offer = strcmp(argv[2], "offer") == 0;
    int wrong = offer
        ? soap_wsrm_create_offer(soap, url, NULL, NULL, 60000, NoDiscard,
                                 soap_wsa_rand_uuid(soap), &seq)
        : soap_wsrm_create(soap, url, NULL, 60000, soap_wsa_rand_uuid(soap), &seq);
    if (wrong) {
        return failed(soap, "CreateSequence");
    }
    ULONG64 values[1000];
    for (int i = 0; i < messages && i < 1000; i++) {
        struct c__incrementResponse out;
        if (soap_wsrm_request_acks(soap, seq, soap_wsa_rand_uuid(soap), action) ||
            soap_call_c__increment(soap, soap_wsrm_to(seq), action, &out)) {
            return failed(soap, "increment");
        }
        /* Takes the acknowledgement out of the header of the reply; one that is on no sequence it
         * calls a fault when it has done so. */
        if (soap_wsrm_check(soap) && offer) {
            return failed(soap, "the reply's headers");
        }
        values[i] = out.value;
    }
    ULONG64 nack = soap_wsrm_nack(seq);
    if (soap_wsrm_close(soap, seq, soap_wsa_rand_uuid(soap))) {
        return failed(soap, "CloseSequence");
    }
    if (soap_wsrm_terminate(soap, seq, soap_wsa_rand_uuid(soap))) {
        return failed(soap, "TerminateSequence");
    }
    printf("{\"values\": [");
    for (int i = 0; i < messages && i < 1000; i++) {
        printf("%s\"" SOAP_ULONG_FORMAT "\"", i ? ", " : "", values[i]);
    }
    printf("], \"not_acknowledged\": " SOAP_ULONG_FORMAT "}\n", nack);
    soap_wsrm_seq_free(soap, seq);
    soap_destroy(soap);
    soap_end(soap);
    soap_free(soap);
    return 0;
}
