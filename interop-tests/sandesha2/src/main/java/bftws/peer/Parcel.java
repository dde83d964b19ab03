package bftws.peer;

import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import javax.activation.DataHandler;
import javax.xml.namespace.QName;
import org.apache.axiom.attachments.ByteArrayDataSource;
import org.apache.axiom.om.OMAbstractFactory;
import org.apache.axiom.om.OMElement;
import org.apache.axiom.om.OMText;
import org.apache.axiom.soap.SOAPEnvelope;
import org.apache.axiom.soap.SOAPFactory;
import org.apache.axis2.Constants;
import org.apache.axis2.addressing.EndpointReference;
import org.apache.axis2.client.OperationClient;
import org.apache.axis2.client.Options;
import org.apache.axis2.client.ServiceClient;
import org.apache.axis2.context.ConfigurationContext;
import org.apache.axis2.context.MessageContext;
import org.apache.axis2.wsdl.WSDLConstants;
import org.apache.sandesha2.Sandesha2Constants;
import org.apache.sandesha2.client.SandeshaClient;
import org.apache.sandesha2.client.SandeshaClientConstants;

/** Calls that carry octets beside their envelope, by MTOM or as attachments, and get them back. */
final class Parcel implements AutoCloseable {
    private static final String PARCELS = "urn:bft-ws:parcels";

    private final Job job;
    private final ServiceClient client;
    private final Options options = new Options();
    private final SOAPFactory factory;
    private final String key = UUID.randomUUID().toString();

    Parcel(ConfigurationContext context, String url, Job job) throws Exception {
        this.job = job;
        client = new ServiceClient(context, null);
        factory = job.is("soap", "1.1")
            ? OMAbstractFactory.getSOAP11Factory()
            : OMAbstractFactory.getSOAP12Factory();
        options.setTo(new EndpointReference(url));
        options.setAction(PARCELS + "/keep");
        options.setSoapVersionURI(factory.getSoapVersionURI());
        options.setTimeOutInMilliSeconds(job.number("wait") * 1000L);
        options.setProperty(job.is("attach", "mtom")
            ? Constants.Configuration.ENABLE_MTOM
            : Constants.Configuration.ENABLE_SWA, Constants.VALUE_TRUE);
        if (isReliable()) {
            client.engageModule("addressing");
            client.engageModule("sandesha2");
            options.setProperty(SandeshaClientConstants.SEQUENCE_KEY, key);
            options.setProperty(SandeshaClientConstants.RM_SPEC_VERSION, job.is("rm", "1.0")
                ? Sandesha2Constants.SPEC_VERSIONS.v1_0
                : Sandesha2Constants.SPEC_VERSIONS.v1_1);
        }
        client.setOptions(options);
    }

    private boolean isReliable() {
        return !job.is("rm", "none");
    }

    void run(Map<String, Object> report) throws Exception {
        List<Object> values = new ArrayList<>();
        report.put("values", values);
        int messages = job.number("messages");
        for (int i = 1; i <= messages; i++) {
            if (i == messages && job.is("rm", "1.0")) {
                options.setProperty(SandeshaClientConstants.LAST_MESSAGE, "true");
            }
            values.add(call(i));
        }
        if (isReliable()) {
            if (job.is("rm", "1.1")) {
                SandeshaClient.terminateSequence(client, key);
            }
            SandeshaClient.waitUntilSequenceCompleted(client, job.number("wait") * 1000L, key);
        }
    }

    /** Sends octets, and says how often the service was called if the same come back. */
    private String call(int number) throws Exception {
        byte[] first = octets(number);
        byte[] second = octets(number + 100);
        OperationClient operation = client.createClient(ServiceClient.ANON_OUT_IN_OP);
        MessageContext request = new MessageContext();
        SOAPEnvelope envelope = factory.getDefaultEnvelope();
        OMElement keep = factory.createOMElement(new QName(PARCELS, "keep", "p"));
        envelope.getBody().addChild(keep);
        for (byte[] octets : List.of(first, second)) {
            DataHandler handler =
                new DataHandler(new ByteArrayDataSource(octets, "application/x-parcel"));
            OMElement data = factory.createOMElement(new QName(PARCELS, "data", "p"), keep);
            if (job.is("attach", "mtom")) {
                data.addChild(factory.createOMText(handler, true));
            } else {
                data.addAttribute("href", "cid:" + request.addAttachment(handler), null);
            }
        }
        request.setEnvelope(envelope);
        operation.addMessageContext(request);
        operation.execute(true);
        MessageContext reply = operation.getMessageContext(WSDLConstants.MESSAGE_LABEL_IN_VALUE);
        OMElement kept = reply.getEnvelope().getBody().getFirstElement();
        List<byte[]> back = new ArrayList<>();
        for (var children = kept.getChildElements(); children.hasNext();) {
            back.add(read(reply, (OMElement) children.next()));
        }
        client.cleanupTransport();
        if (back.size() != 2 || !Arrays.equals(back.get(0), first)
            || !Arrays.equals(back.get(1), second)) {
            return "other octets came back";
        }
        return kept.getAttributeValue(new QName("calls"));
    }

    private byte[] read(MessageContext reply, OMElement data) throws Exception {
        DataHandler handler = job.is("attach", "mtom")
            ? (DataHandler) ((OMText) data.getFirstOMChild()).getDataHandler()
            : reply.getAttachment(data.getAttributeValue(new QName("href")).substring(4));
        ByteArrayOutputStream octets = new ByteArrayOutputStream();
        handler.writeTo(octets);
        return octets.toByteArray();
    }

    /** What no text could carry, and what looks like the end of a part. */
    private static byte[] octets(int number) {
        byte[] octets = new byte[5_000 + number];
        for (int i = 0; i < octets.length; i++) {
            octets[i] = (byte) (i * 31 + number);
        }
        byte[] end = "\r\n--MIMEBoundary\r\n\r\n".getBytes();
        System.arraycopy(end, 0, octets, octets.length - end.length, end.length);
        return octets;
    }

    @Override
    public void close() throws Exception {
        client.cleanup();
    }
}
