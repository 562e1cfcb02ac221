package machine

import "reflect"

// overlay puts what is written above over what is below, key by key. T is a struct of the model.
func overlay[T any](below, above T) T {
	overlayFields(reflect.ValueOf(&below).Elem(), reflect.ValueOf(&above).Elem())
	return below
}

func overlayFields(below, above reflect.Value) {
	for _, f := range schemaOf(below.Type()).Fields {
		b, a := below.Field(f.index), above.Field(f.index)
		bv, av := b.FieldByName("V"), a.FieldByName("V")
		switch {
		case !a.Addr().Interface().(decodable).set(), f.KeepEmpty && av.IsZero():
			continue
		case f.Merge == Join:
			bv.Set(reflect.AppendSlice(bv.Slice3(0, bv.Len(), bv.Len()), av))
		case f.Merge == Keys:
			overlayFields(bv, av)
		default:
			bv.Set(av)
		}
		b.FieldByName("At").Set(a.FieldByName("At"))
		wrong := b.FieldByName("Wrong")
		wrong.SetBool(f.Merge != "" && wrong.Bool() || a.FieldByName("Wrong").Bool())
	}
}
