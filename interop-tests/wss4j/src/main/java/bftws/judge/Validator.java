package bftws.judge;

import java.io.InputStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import javax.xml.XMLConstants;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.transform.Source;
import javax.xml.transform.dom.DOMSource;
import javax.xml.transform.stream.StreamSource;
import javax.xml.validation.Schema;
import javax.xml.validation.SchemaFactory;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.NodeList;
import org.w3c.dom.bootstrap.DOMImplementationRegistry;
import org.w3c.dom.ls.DOMImplementationLS;
import org.w3c.dom.ls.LSInput;

/**
 * Whether an envelope keeps to the schemas of the standards (as CXF's jars hold them), to ours, and
 * to our WSDL. SOAP's own few elements, for which no jar has a schema, are checked by hand.
 */
final class Validator {
    private static final String WSDL = "http://schemas.xmlsoap.org/wsdl/";
    private static final String WSAM = "http://www.w3.org/2007/05/addressing/metadata";
    private static final String BFT = "urn:bft-ws:1";
    private static final String RM = "http://docs.oasis-open.org/ws-rx/wsrm/200702";
    private static final String WSS = "oasis-200401-wss-wssecurity-";
    private static final Map<String, String> JARS = Map.of(
            RM, "schemas/wsdl/wsrm-1.1.xsd",
            Envelope.WSA, "schemas/wsdl/ws-addr.xsd",
            Envelope.WSSE, "schemas/" + WSS + "secext-1.0.xsd",
            "http://docs.oasis-open.org/wss/2004/01/" + WSS + "utility-1.0.xsd",
            "schemas/" + WSS + "utility-1.0.xsd",
            Envelope.DS, "schemas/xmldsig-core-schema.xsd",
            "http://www.w3.org/2001/10/xml-exc-c14n#", "bftws/judge/exc-c14n.xsd");
    /** RM actions that have no element in the Body: the header block is the message. */
    private static final Set<String> BODILESS = Set.of("SequenceAcknowledgement", "AckRequested");

    private final Schema schema;
    private final Map<String, String> bodies = new TreeMap<>();
    private final Set<String> namespaces = new TreeSet<>(JARS.keySet());

    /** Reads ROOT/schemas and ROOT/wsdl. */
    Validator(Path root) throws Exception {
        List<Source> sources = new ArrayList<>();
        sources.add(new StreamSource(root.resolve("schemas/bft-ws.xsd").toFile()));
        for (String resource : JARS.values()) {
            sources.add(new StreamSource(resource(resource), "classpath:" + resource));
        }
        SchemaFactory factory = SchemaFactory.newInstance(XMLConstants.W3C_XML_SCHEMA_NS_URI);
        factory.setResourceResolver((type, namespace, publicId, systemId, base) -> {
            String known = JARS.get(namespace == null ? "" : namespace);
            if (known == null) {
                throw new IllegalArgumentException("no schema for " + namespace + " " + systemId);
            }
            return input(known);
        });
        schema = factory.newSchema(sources.toArray(Source[]::new));
        namespaces.add(BFT);
        actions(root.resolve("wsdl/bft-ws.wsdl"));
    }

    private static InputStream resource(String name) {
        return Validator.class.getClassLoader().getResourceAsStream(name);
    }

    private static LSInput input(String name) {
        try {
            DOMImplementationLS dom = (DOMImplementationLS)
                    DOMImplementationRegistry.newInstance().getDOMImplementation("LS");
            LSInput input = dom.createLSInput();
            input.setByteStream(resource(name));
            input.setSystemId("classpath:" + name);
            return input;
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    /** Which element each action of our WSDL has in its Body. */
    private void actions(Path wsdl) throws Exception {
        DocumentBuilderFactory factory = DocumentBuilderFactory.newInstance();
        factory.setNamespaceAware(true);
        Document document = factory.newDocumentBuilder().parse(wsdl.toFile());
        Map<String, String> messages = new TreeMap<>();
        for (Element message : all(document, "message")) {
            Element part = Envelope.child(message, WSDL, "part");
            messages.put(message.getAttribute("name"), local(part.getAttribute("element")));
        }
        for (String direction : List.of("input", "output")) {
            for (Element end : all(document, direction)) {
                String action = end.getAttributeNS(WSAM, "Action");
                if (!action.isEmpty()) {
                    bodies.put(action, messages.get(local(end.getAttribute("message"))));
                }
            }
        }
    }

    private static List<Element> all(Document document, String local) {
        NodeList found = document.getElementsByTagNameNS(WSDL, local);
        List<Element> elements = new ArrayList<>();
        for (int i = 0; i < found.getLength(); i++) {
            elements.add((Element) found.item(i));
        }
        return elements;
    }

    private static String local(String qname) {
        return qname.substring(qname.indexOf(':') + 1);
    }

    /** What is wrong with an envelope; nothing if all is right. */
    List<String> faults(Envelope envelope) {
        List<String> faults = new ArrayList<>();
        for (Element block : envelope.blocks()) {
            check(block, faults);
        }
        List<Element> content = Envelope.children(envelope.body());
        String found = null;
        if (content.size() > 1) {
            faults.add("more than one element in the Body");
        } else if (content.size() == 1) {
            Element only = content.get(0);
            if (Envelope.SOAP12.equals(only.getNamespaceURI())) {
                fault(only, faults);
                return faults;
            }
            check(only, faults);
            found = only.getLocalName();
        }
        String action = envelope.kind();
        String wanted = wanted(action);
        if (wanted == null) {
            faults.add("action " + action + " is in no WSDL");
        } else if (!wanted.equals(found == null ? "" : found)) {
            faults.add("action " + action + " with " + found + " in the Body");
        }
        return faults;
    }

    /** The element that an action has in the Body, "" for none, null for an unknown action. */
    private String wanted(String action) {
        if (action.startsWith(RM + "/")) {
            String local = action.substring(RM.length() + 1);
            return BODILESS.contains(local) ? "" : local;
        }
        return bodies.get(action);
    }

    private void check(Element element, List<String> faults) {
        if (!namespaces.contains(String.valueOf(element.getNamespaceURI()))) {
            faults.add("no schema for " + element.getNodeName());
            return;
        }
        try {
            schema.newValidator().validate(new DOMSource(element));
        } catch (Exception e) {
            faults.add(element.getNodeName() + ": " + e.getMessage());
        }
    }

    /** SOAP 1.2 part 1 §5.4: Code, Reason, then Node, Role, Detail at will. */
    private static void fault(Element fault, List<String> faults) {
        List<String> names = new ArrayList<>();
        for (Element child : Envelope.children(fault)) {
            boolean soap = Envelope.SOAP12.equals(child.getNamespaceURI());
            names.add(soap ? child.getLocalName() : "{" + child.getNamespaceURI() + "}");
        }
        String shape = String.join(" ", names);
        if (!fault.getLocalName().equals("Fault")
                || !shape.matches("Code Reason( Node)?( Role)?( Detail)?")) {
            faults.add("a " + fault.getLocalName() + " of " + shape);
        }
    }
}
