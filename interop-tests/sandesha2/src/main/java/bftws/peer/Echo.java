package bftws.peer;

import org.apache.axiom.om.OMElement;

/** The service of the server: the element that it got goes back under the name of a response. */
public class Echo {
    public OMElement echo(OMElement request) {
        request.build();
        request.detach();
        request.setLocalName("echoResponse");
        return request;
    }
}
