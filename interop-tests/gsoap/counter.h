// The counter as gSOAP's generator reads it. The headers of WS-RM come from its own wsrm.h (1.1) or
// wsrm5.h (1.0): the script "peer" puts the name in.
#import "WSRM"

//gsoap c service name: Counter
//gsoap c service namespace: urn:bft-ws:counter
//gsoap c schema form: qualified
//gsoap c service method-header-part: increment wsa5__MessageID
//gsoap c service method-header-part: increment wsa5__RelatesTo
//gsoap c service method-header-part: increment wsa5__From
//gsoap c service method-header-part: increment wsa5__ReplyTo
//gsoap c service method-header-part: increment wsa5__FaultTo
//gsoap c service method-header-part: increment wsa5__To
//gsoap c service method-header-part: increment wsa5__Action
//gsoap c service method-header-part: increment wsrm__Sequence
//gsoap c service method-header-part: increment wsrm__AckRequested
//gsoap c service method-header-part: increment wsrm__SequenceAcknowledgement
//gsoap c service method-action: increment urn:bft-ws:counter/increment
//gsoap c service method-output-action: increment urn:bft-ws:counter/incrementResponse
int c__increment(struct c__incrementResponse { ULONG64 value; } *out);

// The same without a reply; gSOAP leaves the last character out of the element's name.
//gsoap c service method-header-part: increment_ wsa5__MessageID
//gsoap c service method-header-part: increment_ wsa5__RelatesTo
//gsoap c service method-header-part: increment_ wsa5__From
//gsoap c service method-header-part: increment_ wsa5__ReplyTo
//gsoap c service method-header-part: increment_ wsa5__FaultTo
//gsoap c service method-header-part: increment_ wsa5__To
//gsoap c service method-header-part: increment_ wsa5__Action
//gsoap c service method-header-part: increment_ wsrm__Sequence
//gsoap c service method-header-part: increment_ wsrm__AckRequested
//gsoap c service method-header-part: increment_ wsrm__SequenceAcknowledgement
//gsoap c service method-action: increment_ urn:bft-ws:counter/increment
int c__increment_(void);
