package bftws.judge;

import java.io.ByteArrayInputStream;
import java.util.ArrayList;
import java.util.List;
import javax.xml.parsers.DocumentBuilder;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.Document;
import org.w3c.dom.Element;
import org.w3c.dom.Node;
import org.xml.sax.ErrorHandler;
import org.xml.sax.SAXException;
import org.xml.sax.SAXParseException;

/** A SOAP envelope as the JDK's parser sees it. */
record Envelope(Document document, Element header, Element body) {
    static final String SOAP11 = "http://schemas.xmlsoap.org/soap/envelope/";
    static final String SOAP12 = "http://www.w3.org/2003/05/soap-envelope";
    static final String WSSE =
            "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
    static final String WSA = "http://www.w3.org/2005/08/addressing";
    static final String DS = "http://www.w3.org/2000/09/xmldsig#";

    static Envelope parse(byte[] octets) throws Exception {
        DocumentBuilderFactory factory = DocumentBuilderFactory.newInstance();
        factory.setNamespaceAware(true);
        factory.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
        DocumentBuilder builder = factory.newDocumentBuilder();
        builder.setErrorHandler(new Silent());
        Document document = builder.parse(new ByteArrayInputStream(octets));
        Element root = document.getDocumentElement();
        String soap = root.getNamespaceURI();
        if (!root.getLocalName().equals("Envelope")
                || !(SOAP11.equals(soap) || SOAP12.equals(soap))) {
            return new Envelope(document, null, null);
        }
        Element header = null;
        Element body = null;
        for (Element child : children(root)) {
            if (!soap.equals(child.getNamespaceURI())) {
                throw new SAXException("a foreign child of Envelope");
            }
            if (child.getLocalName().equals("Header") && header == null && body == null) {
                header = child;
            } else if (child.getLocalName().equals("Body") && body == null) {
                body = child;
            } else {
                throw new SAXException("Envelope wants one Header, then one Body");
            }
        }
        if (body == null) {
            throw new SAXException("no Body");
        }
        return new Envelope(document, header, body);
    }

    Element security() {
        return header == null ? null : child(header, WSSE, "Security");
    }

    List<Element> blocks() {
        return header == null ? List.of() : children(header);
    }

    /** The action, by which the summary counts. */
    String kind() {
        Element action = header == null ? null : child(header, WSA, "Action");
        return action == null ? "(no action)" : action.getTextContent();
    }

    static Element child(Element parent, String namespace, String local) {
        for (Element child : children(parent)) {
            if (namespace.equals(child.getNamespaceURI()) && local.equals(child.getLocalName())) {
                return child;
            }
        }
        return null;
    }

    static List<Element> children(Element parent) {
        List<Element> found = new ArrayList<>();
        for (Node n = parent.getFirstChild(); n != null; n = n.getNextSibling()) {
            if (n instanceof Element element) {
                found.add(element);
            }
        }
        return found;
    }

    /** The JDK's parser prints to stderr otherwise. */
    private static final class Silent implements ErrorHandler {
        @Override
        public void warning(SAXParseException e) {}

        @Override
        public void error(SAXParseException e) throws SAXException {
            throw e;
        }

        @Override
        public void fatalError(SAXParseException e) throws SAXException {
            throw e;
        }
    }
}
