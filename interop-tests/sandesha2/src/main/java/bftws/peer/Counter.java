package bftws.peer;

import javax.xml.namespace.QName;
import org.apache.axiom.om.OMAbstractFactory;
import org.apache.axiom.om.OMElement;
import org.apache.axiom.om.OMFactory;

/** A counter, for groups to wrap: each reply shows whether a call was lost, repeated or moved. */
public class Counter {
    static final String NAMESPACE = "urn:bft-ws:counter";

    private long value;

    /** Counts. A child of the request says for how many milliseconds it works after that. */
    public OMElement increment(OMElement request) throws InterruptedException {
        long counted;
        synchronized (this) {
            counted = ++value;
        }
        OMElement delay = request.getFirstElement();
        if (delay != null) {
            Thread.sleep(Long.parseLong(delay.getText()));
        }
        return reply("incrementResponse", counted);
    }

    /** Counts, and says nothing. */
    public synchronized void tick(OMElement request) {
        value++;
    }

    /** What was counted. */
    public synchronized OMElement get(OMElement request) {
        return reply("getResponse", value);
    }

    private static OMElement reply(String name, long value) {
        OMFactory factory = OMAbstractFactory.getOMFactory();
        OMElement reply = factory.createOMElement(new QName(NAMESPACE, name, "c"));
        factory.createOMElement(new QName(NAMESPACE, "value", "c"), reply)
            .setText(Long.toString(value));
        return reply;
    }
}
