package bftws.peer;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import javax.xml.namespace.QName;
import org.apache.axiom.om.OMAbstractFactory;
import org.apache.axiom.om.OMElement;
import org.apache.axiom.om.OMFactory;
import org.apache.axiom.soap.SOAP11Constants;
import org.apache.axiom.soap.SOAP12Constants;
import org.apache.axis2.AxisFault;
import org.apache.axis2.addressing.AddressingConstants;
import org.apache.axis2.addressing.EndpointReference;
import org.apache.axis2.client.Options;
import org.apache.axis2.client.ServiceClient;
import org.apache.axis2.client.async.AxisCallback;
import org.apache.axis2.context.ConfigurationContext;
import org.apache.axis2.context.MessageContext;
import org.apache.axis2.engine.AxisConfiguration;
import org.apache.axis2.transport.http.HTTPConstants;
import org.apache.commons.httpclient.MultiThreadedHttpConnectionManager;
import org.apache.sandesha2.Sandesha2Constants;
import org.apache.sandesha2.client.SandeshaClient;
import org.apache.sandesha2.client.SandeshaClientConstants;
import org.apache.sandesha2.client.SequenceReport;
import org.apache.sandesha2.policy.SandeshaPolicyBean;
import org.apache.sandesha2.util.SandeshaUtil;

/** One sequence of the client, from its first message to its end. */
final class Talk implements AutoCloseable {
    private static final String COUNTER = "urn:bft-ws:counter";
    private static final String ECHO = "urn:bft-ws:echo";

    private final Job job;
    private final ServiceClient client;
    private final ConfigurationContext context;
    private final Options options = new Options();
    private final String key = UUID.randomUUID().toString();

    Talk(ConfigurationContext context, String url, Job job) throws Exception {
        this.job = job;
        this.context = context;
        client = new ServiceClient(context, null);
        client.engageModule("addressing");
        client.engageModule("sandesha2");
        if (job.get("retransmit") != null) {
            SandeshaPolicyBean policy = SandeshaUtil.getPropertyBean(context.getAxisConfiguration());
            policy.setRetransmissionInterval(job.number("retransmit"));
            policy.setExponentialBackoff(false);
            policy.setMaximumRetransmissionCount(-1);
            // Its stock pool has two connections, and Axis2 leaks the one on which the reply to a
            // repeated request comes that was answered before.
            MultiThreadedHttpConnectionManager pool = new MultiThreadedHttpConnectionManager();
            pool.getParams().setDefaultMaxConnectionsPerHost(200);
            pool.getParams().setMaxTotalConnections(200);
            context.setProperty(HTTPConstants.MULTITHREAD_HTTP_CONNECTION_MANAGER, pool);
        }
        options.setTo(new EndpointReference(url));
        options.setAction(job.is("call", "echo") ? ECHO + "/echo" : COUNTER + "/increment");
        options.setSoapVersionURI(job.is("soap", "1.1")
            ? SOAP11Constants.SOAP_ENVELOPE_NAMESPACE_URI
            : SOAP12Constants.SOAP_ENVELOPE_NAMESPACE_URI);
        options.setProperty(SandeshaClientConstants.SEQUENCE_KEY, key);
        options.setProperty(SandeshaClientConstants.RM_SPEC_VERSION, job.is("rm", "1.0")
            ? Sandesha2Constants.SPEC_VERSIONS.v1_0
            : Sandesha2Constants.SPEC_VERSIONS.v1_1);
        if (job.is("wsa", "2004")) {
            options.setProperty(AddressingConstants.WS_ADDRESSING_VERSION,
                AddressingConstants.Submission.WSA_NAMESPACE);
        }
        if (job.is("exchange", "two-way") && job.is("offer", "declined")) {
            // Sandesha2 itself declines names of one letter; so that the job says what it tries.
            options.setProperty(SandeshaClientConstants.OFFERED_SEQUENCE_ID, "x");
        }
        if (job.get("listen") != null) {
            listen(context, job.get("listen"));
        }
        if (job.is("polling", "off")) {
            SandeshaPolicyBean policy = SandeshaUtil.getPropertyBean(context.getAxisConfiguration());
            policy.setEnableRMAnonURI(false);
            options.setReplyTo(new EndpointReference(AddressingConstants.Final.WSA_ANONYMOUS_URL));
        }
        if (job.is("gzip", "on")) {
            options.setProperty(HTTPConstants.MC_GZIP_REQUEST, Boolean.TRUE);
        }
        String patience = job.get("patience");
        options.setTimeOutInMilliSeconds(
            (patience == null ? job.number("wait") : Integer.parseInt(patience)) * 1000L);
        client.setOptions(options);
    }

    void run(Map<String, Object> report) throws Exception {
        List<String> values = Collections.synchronizedList(new ArrayList<>());
        report.put("values", values);
        int messages = job.number("messages");
        long[] times = new long[messages];
        long begun = System.nanoTime();
        for (int i = 1; i <= messages; i++) {
            if (i == messages && job.is("rm", "1.0")) {
                options.setProperty(SandeshaClientConstants.LAST_MESSAGE, "true");
            }
            long sent = System.nanoTime();
            if (job.is("exchange", "one-way")) {
                client.fireAndForget(body(i));
            } else if (job.get("listen") != null) {
                // Its blocking call loses replies that come to a listener.
                Answer answer = new Answer();
                client.sendReceiveNonBlocking(body(i), answer);
                values.add(answer.get(job.number("wait"), TimeUnit.SECONDS));
            } else {
                values.add(call(i));
            }
            times[i - 1] = (System.nanoTime() - sent) / 1_000;
        }
        report.put("ms", (System.nanoTime() - begun) / 1_000_000);
        if (job.is("times", "all")) {
            report.put("times_us", times);
        }
        end(report);
    }

    /**
     * The reply to a call; or nothing, after its patience. Where two copies of a reply come at
     * once, Sandesha2 now and then acknowledges it and hands neither on: whoever calls waits for
     * ever. What it received stands in its report.
     */
    private String call(int number) throws AxisFault {
        try {
            return value(client.sendReceive(body(number)));
        } catch (AxisFault error) {
            if (job.get("patience") == null) {
                throw error;
            }
            error.printStackTrace();
            return "";
        }
    }

    /** Answers come to a server of the client's own. */
    private void listen(ConfigurationContext context, String port) throws Exception {
        AxisConfiguration configuration = context.getAxisConfiguration();
        if (configuration.getParameter("hostname") == null) {
            configuration.addParameter("hostname", "127.0.0.1");
            configuration.getTransportIn("http").getParameter("port").setValue(port);
        }
        options.setTransportInProtocol("http");
        options.setUseSeparateListener(true);
    }

    private void end(Map<String, Object> report) throws Exception {
        if (job.is("rm", "1.1")) {
            waitUntilAcknowledged();
            if (job.is("ask", "true")) {
                SandeshaClient.sendAckRequest(client, key);
            }
            if (job.is("close", "true")) {
                SandeshaClient.closeSequence(client, key);
            }
            SandeshaClient.terminateSequence(client, key);
        }
        SandeshaClient.waitUntilSequenceCompleted(client, job.number("wait") * 1000L, key);
        SequenceReport sequence = SandeshaClient.getOutgoingSequenceReport(client);
        report.put("acknowledged", sequence.getCompletedMessages().size());
        report.put("terminated",
            sequence.getSequenceStatus() == SequenceReport.SEQUENCE_STATUS_TERMINATED);
        report.put("status", sequence.getSequenceStatus());
        int received = 0;
        for (Object incoming : SandeshaClient.getIncomingSequenceReports(context)) {
            received = Math.max(received, ((SequenceReport) incoming).getCompletedMessages().size());
        }
        report.put("received", received);
        Exception last = SandeshaClient.getLastSendError(client);
        if (last != null) {
            report.put("last_send_error", last.toString());
        }
    }

    private void waitUntilAcknowledged() throws Exception {
        long until = System.nanoTime() + job.number("wait") * 1_000_000_000L;
        while (System.nanoTime() < until) {
            SequenceReport sequence = SandeshaClient.getOutgoingSequenceReport(client);
            if (sequence != null && sequence.getCompletedMessages().size() >= job.number("messages")) {
                return;
            }
            Thread.sleep(20);
        }
    }

    /** The Body of a call; an echo gets the call's number, filled up to 32 characters. */
    private OMElement body(int number) {
        OMFactory factory = OMAbstractFactory.getOMFactory();
        if (!job.is("call", "echo")) {
            return factory.createOMElement(new QName(COUNTER, "increment", "c"));
        }
        OMElement echo = factory.createOMElement(new QName(ECHO, "echo", "e"));
        OMElement text = factory.createOMElement(new QName(ECHO, "text", "e"), echo);
        text.setText(String.format("%032d", number));
        return echo;
    }

    private static String value(OMElement reply) {
        OMElement first = reply.getFirstElement();
        return first == null ? reply.toString() : first.getText();
    }

    /** The reply to one call, when it comes. */
    private static final class Answer extends CompletableFuture<String> implements AxisCallback {
        @Override
        public void onMessage(MessageContext reply) {
            complete(value(reply.getEnvelope().getBody().getFirstElement()));
        }

        @Override
        public void onFault(MessageContext reply) {
            complete(reply.getEnvelope().getBody().toString());
        }

        @Override
        public void onError(Exception error) {
            completeExceptionally(error);
        }

        @Override
        public void onComplete() {
            // One of the others was called before.
        }
    }

    @Override
    public void close() throws Exception {
        client.cleanup();
    }
}
