package bftws.peer;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import javax.xml.namespace.QName;
import org.apache.axis2.Constants;
import org.apache.axis2.context.ConfigurationContext;
import org.apache.axis2.context.ConfigurationContextFactory;
import org.apache.axis2.description.AxisOperation;
import org.apache.axis2.description.AxisService;
import org.apache.axis2.description.InOnlyAxisOperation;
import org.apache.axis2.description.InOutAxisOperation;
import org.apache.axis2.engine.AxisConfiguration;
import org.apache.axis2.engine.ListenerManager;
import org.apache.axis2.receivers.RawXMLINOnlyMessageReceiver;
import org.apache.axis2.receivers.RawXMLINOutMessageReceiver;
import org.apache.sandesha2.util.SandeshaUtil;

/**
 * Stock Sandesha2 servers of the echo and the counter service: Server REPOSITORY PORT... prints one
 * line of JSON when they can be called, and serves until it is ended. Each port is a server of its
 * own, with its own state and its own sequences; these end when they are not used for a minute, or
 * for so many seconds as the property bftws.idle_s says.
 */
public final class Server {
    private static final String ECHO = "urn:bft-ws:echo";

    private Server() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        List<String> urls = new ArrayList<>();
        for (String port : Arrays.asList(arguments).subList(1, arguments.length)) {
            serve(arguments[0], port);
            urls.add("\"http://127.0.0.1:" + port + "/axis2/services/\"");
        }
        out.printf("{\"event\": \"ready\", \"url\": \"http://127.0.0.1:%s/axis2/services/echo\", "
            + "\"services\": [%s]}%n", arguments[1], String.join(", ", urls));
        out.flush();
    }

    private static void serve(String repository, String port) throws Exception {
        ConfigurationContext context =
            ConfigurationContextFactory.createConfigurationContextFromFileSystem(repository, null);
        AxisConfiguration configuration = context.getAxisConfiguration();
        configuration.getTransportIn("http").getParameter("port").setValue(port);
        configuration.addParameter("hostname", "127.0.0.1");
        configuration.engageModule("addressing");
        AxisService echo = service(configuration, "echo", ECHO, Echo.class);
        operation(configuration, echo, ECHO, "echo", true);
        configuration.addService(echo);
        AxisService counter = service(configuration, "counter", Counter.NAMESPACE, Counter.class);
        operation(configuration, counter, Counter.NAMESPACE, "increment", true);
        operation(configuration, counter, Counter.NAMESPACE, "get", true);
        operation(configuration, counter, Counter.NAMESPACE, "tick", false);
        configuration.addService(counter);
        configuration.engageModule("sandesha2");
        Integer idle = Integer.getInteger("bftws.idle_s");
        if (idle != null) {
            SandeshaUtil.getPropertyBean(configuration).setInactiveTimeoutInterval(idle, "seconds");
        }
        ListenerManager listeners = new ListenerManager();
        listeners.init(context);
        listeners.start();
    }

    private static AxisService service(
            AxisConfiguration configuration, String name, String namespace, Class<?> does)
            throws Exception {
        AxisService service = new AxisService(name);
        service.setTargetNamespace(namespace);
        service.setScope(Constants.SCOPE_APPLICATION);
        service.setClassLoader(Server.class.getClassLoader());
        service.addParameter(Constants.SERVICE_CLASS, does.getName());
        return service;
    }

    private static void operation(
            AxisConfiguration configuration, AxisService service, String namespace, String name,
            boolean twoWay) throws Exception {
        QName named = new QName(namespace, name);
        AxisOperation operation =
            twoWay ? new InOutAxisOperation(named) : new InOnlyAxisOperation(named);
        operation.setMessageReceiver(
            twoWay ? new RawXMLINOutMessageReceiver() : new RawXMLINOnlyMessageReceiver());
        operation.setSoapAction(namespace + "/" + name);
        service.addOperation(operation);
        service.mapActionToOperation(namespace + "/" + name, operation);
        configuration.getPhasesInfo().setOperationPhases(operation);
    }
}
