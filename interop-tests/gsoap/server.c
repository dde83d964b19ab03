/* A stock gSOAP server of the counter service, to be wrapped: server PORT. It prints one line of
 * JSON when it can be called, and serves one call after the other until it is ended. */
#include "Counter.nsmap"
#include "soapH.h"
#include "wsaapi.h"
#include "wsrmapi.h"

#include <stdio.h>
#include <stdlib.h>

static ULONG64 counted = 0;

int c__increment(struct soap *soap, struct c__incrementResponse *out) {
    if (soap_wsrm_check(soap)) {
        return soap->error;
    }
    out->value = ++counted;
    return soap_wsrm_reply(soap, NULL, "urn:bft-ws:counter/incrementResponse");
}

/* The generated part of a one-way call, which nobody calls here. */
int c__increment_(struct soap *soap) {
    return soap_send_empty_response(soap, SOAP_OK);
}

int SOAP_ENV__Fault(struct soap *soap, char *code, char *string, char *actor,
                    struct SOAP_ENV__Detail *detail, struct SOAP_ENV__Code *code12,
                    struct SOAP_ENV__Reason *reason, char *node, char *role,
                    struct SOAP_ENV__Detail *detail12) {
    (void)code, (void)string, (void)actor, (void)detail, (void)code12, (void)reason;
    (void)node, (void)role, (void)detail12;
    return soap_send_empty_response(soap, SOAP_OK);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    struct soap *soap = soap_new();
    soap_register_plugin(soap, soap_wsa);
    soap_register_plugin(soap, soap_wsrm);
    soap->bind_flags = SO_REUSEADDR;
    soap->send_timeout = soap->recv_timeout = 30;
    if (!soap_valid_socket(soap_bind(soap, "127.0.0.1", atoi(argv[1]), 100))) {
        soap_print_fault(soap, stderr);
        return 1;
    }
    printf("{\"event\": \"ready\", \"url\": \"http://127.0.0.1:%s/counter\"}\n", argv[1]);
    fflush(stdout);
    for (;;) {
        if (!soap_valid_socket(soap_accept(soap))) {
            soap_print_fault(soap, stderr);
            return 1;
        }
        if (soap_serve(soap)) {
            soap_print_fault(soap, stderr);
        }
        soap_destroy(soap);
        soap_end(soap);
    }
}
