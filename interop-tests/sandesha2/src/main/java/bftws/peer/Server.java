package bftws.peer;

import java.io.PrintStream;
import javax.xml.namespace.QName;
import org.apache.axis2.Constants;
import org.apache.axis2.context.ConfigurationContext;
import org.apache.axis2.context.ConfigurationContextFactory;
import org.apache.axis2.description.AxisOperation;
import org.apache.axis2.description.AxisService;
import org.apache.axis2.description.InOutAxisOperation;
import org.apache.axis2.engine.AxisConfiguration;
import org.apache.axis2.engine.ListenerManager;
import org.apache.axis2.receivers.RawXMLINOutMessageReceiver;

/**
 * A stock Sandesha2 server of the echo service, with no replicas behind it: Server REPOSITORY PORT
 * prints one line of JSON when it can be called, and serves until it is ended.
 */
public final class Server {
    private static final String ECHO = "urn:bft-ws:echo";

    private Server() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        ConfigurationContext context =
            ConfigurationContextFactory.createConfigurationContextFromFileSystem(arguments[0], null);
        AxisConfiguration configuration = context.getAxisConfiguration();
        configuration.getTransportIn("http").getParameter("port").setValue(arguments[1]);
        configuration.addParameter("hostname", "127.0.0.1");
        configuration.engageModule("addressing");
        configuration.addService(echo(configuration));
        configuration.engageModule("sandesha2");
        ListenerManager listeners = new ListenerManager();
        listeners.init(context);
        listeners.start();
        out.printf("{\"event\": \"ready\", \"url\": \"http://127.0.0.1:%s/axis2/services/echo\"}%n",
            arguments[1]);
        out.flush();
    }

    private static AxisService echo(AxisConfiguration configuration) throws Exception {
        AxisService service = new AxisService("echo");
        service.setTargetNamespace(ECHO);
        service.setScope(Constants.SCOPE_APPLICATION);
        service.setClassLoader(Server.class.getClassLoader());
        service.addParameter(Constants.SERVICE_CLASS, Echo.class.getName());
        AxisOperation operation = new InOutAxisOperation(new QName(ECHO, "echo"));
        operation.setMessageReceiver(new RawXMLINOutMessageReceiver());
        operation.setSoapAction(ECHO + "/echo");
        service.addOperation(operation);
        service.mapActionToOperation(ECHO + "/echo", operation);
        configuration.getPhasesInfo().setOperationPhases(operation);
        return service;
    }
}
